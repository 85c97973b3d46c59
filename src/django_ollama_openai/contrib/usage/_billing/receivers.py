"""Requests to the receivers of events: with time limits, without redirects, and not to addresses
of the site's own network."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any, Final

import httpcore
import httpx

from ...._remote_images.network import PinnedNetwork
from ...._remote_images.rules import FetchRules, ImageNotFetched, check_url

__all__ = ["TIMEOUT", "DeliveryFailed", "is_final", "post", "problem_of"]

#: Seconds for one request.
TIMEOUT: Final = 10.0
RULES: Final = FetchRules(total_timeout=TIMEOUT, idle_timeout=TIMEOUT)
#: Allows receivers in the site's own network.
ANYWHERE: Final = FetchRules(
    total_timeout=TIMEOUT, idle_timeout=TIMEOUT, is_allowed=lambda address: True
)


class DeliveryFailed(Exception):
    """Events were not acknowledged. If ``is_final``, another attempt is of no use."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


def problem_of(url: str, *, is_private: bool) -> str | None:
    """Return the reason why ``url`` can be no receiver, if there is one. A name is not resolved."""
    rules = ANYWHERE if is_private else RULES
    try:
        checked = check_url(url, rules)
    except ImageNotFetched:
        return "it is no valid URL of http or https"
    if is_private:
        return None
    if checked.scheme != "https":
        return "it has to begin with 'https://'"
    return None if _may_be_public(checked, rules) else "it is inside the site's own network"


def _may_be_public(url: httpx.URL, rules: FetchRules) -> bool:
    host = url.host.rstrip(".").lower()
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return False
    try:
        return rules.is_allowed(ipaddress.ip_address(host))
    except ValueError:
        return True


def post(url: str, body: Any, headers: Mapping[str, str], *, is_private: bool = False) -> None:
    """Send ``body`` as JSON, and return when it is acknowledged with a status of 2xx.

    Raises:
        DeliveryFailed: It is not. The message has neither the body nor the headers.
    """
    if problem := problem_of(url, is_private=is_private):
        raise DeliveryFailed(f"The address cannot be used: {problem}.")
    rules = ANYWHERE if is_private else RULES
    checked = check_url(url, rules)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    network = PinnedNetwork(rules)
    target = httpcore.URL(
        scheme=checked.raw_scheme,
        host=checked.raw_host,
        port=checked.port,
        target=checked.raw_path,
    )
    sent = {
        "Host": checked.netloc.decode("ascii"),
        "Content-Length": str(len(content)),
        "Content-Type": "application/json",
        "User-Agent": "django-ollama-openai",
        **headers,
    }
    try:
        with (
            httpcore.ConnectionPool(
                ssl_context=rules.tls_context(), network_backend=network, max_connections=1
            ) as connections,
            connections.stream("POST", target, headers=list(sent.items()), content=content) as got,
        ):
            status = got.status
    except (OSError, TimeoutError, httpcore.TimeoutException, httpcore.NetworkError) as error:
        raise DeliveryFailed(f"No answer: {type(error).__name__}.") from None
    except (httpcore.ProtocolError, ImageNotFetched):
        raise DeliveryFailed(
            "No answer: the server is unknown, not on the public internet, or sends no HTTP."
        ) from None
    if not 200 <= status < 300:
        raise DeliveryFailed(f"The status of the answer was {status}.", is_final=is_final(status))


def is_final(status: int) -> bool:
    """Return whether another attempt after ``status`` is of no use: the request is wrong, or the
    receiver gone. A wrong secret or address can be mended."""
    return status in (400, 410, 413, 422)
