"""The errors that clients get, as one tree, with OpenAI's statuses and codes.

    GatewayError                        500 server_error
    ├── InvalidRequest                  400 invalid_request_error
    │   ├── UnsupportedParameter        400 unsupported_parameter
    │   ├── ContextLengthExceeded       400 context_length_exceeded
    │   ├── RequestTooLarge             413 request_too_large
    │   └── UnsupportedContentCoding    415 unsupported_content_coding
    ├── AuthenticationFailed            401 invalid_api_key
    ├── PermissionDenied                403 permission_denied
    ├── NotFound                        404 not_found
    │   └── ModelNotFound               404 model_not_found
    ├── MethodNotAllowed                405 method_not_allowed
    ├── ClientTimeout                   408 client_timeout
    ├── RateLimited                     429 rate_limit_exceeded
    ├── InsufficientQuota               429 insufficient_quota
    ├── Unavailable                     503 server_error
    │   ├── Overloaded                  503 overloaded
    │   └── ShuttingDown                503 shutting_down
    └── UpstreamError                   502 bad_upstream
        ├── UpstreamUnavailable         503 upstream_unavailable
        └── UpstreamTimeout             504 upstream_timeout

``UpstreamUnavailable`` is an ``Unavailable`` too.

Any of them may be raised from a backend, a hook or an authenticator; the message is sent to the
client as it is, so it must not name hosts, files or secrets of the server.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

__all__ = [
    "AuthenticationFailed",
    "ClientTimeout",
    "ContextLengthExceeded",
    "GatewayError",
    "InsufficientQuota",
    "InvalidRequest",
    "MethodNotAllowed",
    "ModelNotFound",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "RateLimited",
    "RequestTooLarge",
    "ShuttingDown",
    "Unavailable",
    "UnsupportedContentCoding",
    "UnsupportedParameter",
    "UpstreamError",
    "UpstreamTimeout",
    "UpstreamUnavailable",
]


MAX_MESSAGE, MAX_PARAM = 16_000, 1_000


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


class GatewayError(Exception):
    """An error in OpenAI's envelope: ``{"error": {"message", "type", "param", "code"}}``.

    ``param`` names the request field at fault, in OpenAI's notation (``messages[0].role``).
    """

    status: ClassVar[int] = 500
    type: str = "server_error"
    code: str | None = None
    #: The engine's own message about its failure, for operators and never for clients.
    engine_message: str = ""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        # Both may quote the request, which may be millions of characters long.
        self.message = _shortened(message, MAX_MESSAGE)
        self.param = None if param is None else _shortened(param, MAX_PARAM)
        if code is not None:
            self.code = code

    @property
    def headers(self) -> dict[str, str]:
        """Extra response headers, such as ``Allow`` or ``Retry-After``."""
        return {}

    def envelope(self) -> dict[str, Any]:
        """Return the body of the error response, and of an error frame of a stream, as a dict."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class InvalidRequest(GatewayError):
    """The request is invalid."""

    status = 400
    type = "invalid_request_error"


class UnsupportedParameter(InvalidRequest):
    """The backend does not support a parameter that would change the answer."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt does not fit into the model's context, or is longer than the site allows."""

    code = "context_length_exceeded"


class RequestTooLarge(InvalidRequest):
    """The body is larger than ``MAX_BODY_BYTES``."""

    status = 413
    code = "request_too_large"


class UnsupportedContentCoding(InvalidRequest):
    """The request body has a content coding that is not supported."""

    status = 415
    code = "unsupported_content_coding"

    def __init__(self, unsupported: Iterable[str], supported: Iterable[str]) -> None:
        self.supported = tuple(supported)
        names = ", ".join(map(repr, unsupported))
        super().__init__(
            f"Unsupported Content-Encoding of the request body: {names}. "
            f"Use {' or '.join(self.supported)}, or send the body without one."
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"Accept-Encoding": ", ".join(self.supported)}


class AuthenticationFailed(GatewayError):
    """The credentials are missing or wrong."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class PermissionDenied(GatewayError):
    """The caller does not have permission."""

    status = 403
    type = "permission_error"
    code = "permission_denied"


class NotFound(GatewayError):
    """The path does not exist."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """The model does not exist, or the site does not offer it."""

    code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"The model {model!r} does not exist or you do not have access to it.", param="model"
        )


class MethodNotAllowed(GatewayError):
    """The path does not support this method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = tuple(allowed)
        super().__init__(f"{method} is not allowed here; use {' or '.join(self.allowed)}.")

    @property
    def headers(self) -> dict[str, str]:
        return {"Allow": ", ".join(self.allowed)}


class ClientTimeout(GatewayError):
    """The client has read nothing of a stream for ``CLIENT_TIMEOUT`` seconds. If it reads on, this
    is the last event."""

    status = 408
    type = "invalid_request_error"
    code = "client_timeout"

    def __init__(self, message: str = "The answer was not read in time.") -> None:
        super().__init__(message)


class RateLimited(GatewayError):
    """The caller has used up a limit, which frees up after ``retry_after`` seconds.

    ``type`` is the unit of the limit, ``"requests"`` or ``"tokens"``, as with OpenAI.
    """

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, type: str = "requests", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.type = type
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        if self.retry_after is None:
            return {}
        milliseconds = math.ceil(self.retry_after * 1000)
        # OpenAI's clients read the milliseconds, others whole seconds.
        return {
            "Retry-After": str(math.ceil(self.retry_after)),
            "retry-after-ms": str(milliseconds),
        }


class InsufficientQuota(GatewayError):
    """The caller has used up a limit that does not free up soon, such as a budget."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"

    @property
    def headers(self) -> dict[str, str]:
        # OpenAI's clients repeat a 429 otherwise.
        return {"x-should-retry": "false"}


class Unavailable(GatewayError):
    """The request cannot be answered now; it may be repeated after ``retry_after`` seconds."""

    status = 503
    default_message: ClassVar[str] = "Not available at the moment. Try again later."

    def __init__(self, message: str | None = None, *, retry_after: int = 5) -> None:
        super().__init__(message or self.default_message)
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after)}


class Overloaded(Unavailable):
    """The backend is busy, and the queue is full or the request has waited too long."""

    code = "overloaded"
    default_message = "The backend of this model is busy. Try again in a moment."


class ShuttingDown(Unavailable):
    """The server is stopping and does not wait for the answer."""

    code = "shutting_down"
    default_message = "The server is shutting down; send the request again."


class UpstreamError(GatewayError):
    """The engine failed, or sent an invalid answer."""

    status = 502
    code = "bad_upstream"


class UpstreamUnavailable(Unavailable, UpstreamError):
    """The engine cannot be reached, or accepts no more requests."""

    code = "upstream_unavailable"
    default_message = "The engine cannot be reached. Try again later."


class UpstreamTimeout(UpstreamError):
    """The engine did not answer in time."""

    status = 504
    code = "upstream_timeout"
