"""Translate Django's own errors, which the site's code raises, into this app's."""

from __future__ import annotations

from django.core import exceptions
from django.http import Http404

from ..exceptions import GatewayError, InvalidRequest, NotFound, PermissionDenied

__all__ = ["as_gateway_error"]


def as_gateway_error(error: BaseException) -> GatewayError | None:
    """Return ``error``, or this app's counterpart of one of Django's errors; ``None`` for any
    other, which is a bug."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, exceptions.PermissionDenied):
        return PermissionDenied(str(error) or "Permission denied.")
    if isinstance(error, exceptions.SuspiciousOperation):
        return InvalidRequest("The request is malformed.")
    if isinstance(error, Http404):
        return NotFound("Not found.")
    return None
