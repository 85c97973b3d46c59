"""Fetch the images of a request, one after the other."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager
from typing import Final

import httpcore
import httpx

from .. import __version__
from .._pump import iterate_in_thread
from .network import PinnedNetwork
from .rules import FetchRules, ImageNotFetched, check_url, redirect_target

__all__ = ["DEFAULT_RULES", "afetch_images", "fetch_images"]

DEFAULT_RULES: Final = FetchRules()

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# No SVG: models only take raster images.
IMAGE_TYPE: Final = re.compile(r"image/(?!svg)[a-z0-9!#$&^_.+-]+")


def fetch_images(urls: Sequence[str], rules: FetchRules | None = None) -> list[bytes]:
    """Return the images that ``urls`` name, in this order.

    ``rules`` defaults to :data:`DEFAULT_RULES`.

    Raises:
        ImageNotFetched: One of them cannot be fetched. No connection is made if a URL is invalid.
        Cancelled: The current work was cancelled; its connection is closed.
    """
    rules = rules or DEFAULT_RULES
    network = PinnedNetwork(rules)
    if len(urls) > rules.max_images:
        with _blaming(rules.max_images):
            raise ImageNotFetched(
                f"A request may name at most {rules.max_images} images by http(s) URL."
            )
    checked = []
    for index, text in enumerate(urls):
        with _blaming(index):
            checked.append(check_url(text, rules))
    images: dict[httpx.URL, bytes] = {}
    left = rules.max_total_bytes
    with httpcore.ConnectionPool(
        ssl_context=rules.tls_context(), network_backend=network
    ) as connections:
        for index, url in enumerate(checked):
            with _blaming(index):
                if url not in images:
                    images[url] = _fetch(connections, url, left, rules)
                left -= len(images[url])
                if left < 0:
                    raise _too_large(left, rules)
    return [images[url] for url in checked]


async def afetch_images(urls: Sequence[str], rules: FetchRules | None = None) -> list[bytes]:
    """Async version of :func:`fetch_images`; runs it in a thread, and cancels it with the task."""
    async with aclosing(iterate_in_thread(lambda: iter([fetch_images(urls, rules)]))) as results:
        return await anext(results)


@contextmanager
def _blaming(index: int) -> Iterator[None]:
    try:
        yield
    except ImageNotFetched as error:
        error.index = index
        raise


def _fetch(
    connections: httpcore.ConnectionPool, url: httpx.URL, left: int, rules: FetchRules
) -> bytes:
    """Return the image of at most ``left`` bytes at ``url``, or where that redirects to."""
    for _ in range(1 + rules.max_redirects):
        with _failures(), _get(connections, url) as response:
            headers = _headers(response)
            if response.status not in REDIRECTS or "location" not in headers:
                return _image(response, headers, left, rules)
        url = redirect_target(url, headers["location"], rules)
    raise _not_fetched(f"its URL redirects more than {rules.max_redirects} times.")


def _get(
    connections: httpcore.ConnectionPool, url: httpx.URL
) -> AbstractContextManager[httpcore.Response]:
    target = httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )
    headers = [
        (b"Host", url.netloc),
        (b"User-Agent", f"django-ollama-openai/{__version__}".encode()),
        (b"Accept", b"image/*"),
        (b"Accept-Encoding", b"identity"),
        (b"Connection", b"close"),
    ]
    return connections.stream("GET", target, headers=headers)


def _headers(response: httpcore.Response) -> dict[str, str]:
    """Return the headers by lower-case name; repeated ones are joined."""
    headers: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("ascii").lower(), value.decode("utf-8", "replace")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _image(
    response: httpcore.Response, headers: dict[str, str], left: int, rules: FetchRules
) -> bytes:
    if response.status != 200:
        raise _not_fetched(f"its server answered with status {response.status}.")
    # A small compressed body may be large when it is decompressed.
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise _not_fetched("its server sent it in an encoding that was not asked for.")
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not IMAGE_TYPE.fullmatch(content_type):
        raise ImageNotFetched(
            "What the URL leads to is not an image: its Content-Type must be image/*, and not SVG."
        )
    limit = min(left, rules.max_image_bytes)
    if int(headers.get("content-length", 0)) > limit:
        raise _too_large(left, rules)
    body = bytearray()
    for data in response.iter_stream():
        body += data
        if len(body) > limit:
            raise _too_large(left, rules)
    if not body:
        raise ImageNotFetched("What the URL leads to is not an image: it is empty.")
    return bytes(body)


def _too_large(left: int, rules: FetchRules) -> ImageNotFetched:
    if left < rules.max_image_bytes:
        limit = f"all of a request have at most {rules.max_total_bytes // 2**20} MiB."
    else:
        limit = f"it may have at most {rules.max_image_bytes // 2**20} MiB."
    return ImageNotFetched(f"The image is too large: {limit}")


@contextmanager
def _failures() -> Iterator[None]:
    """Replace the errors of a connection by those that the client gets."""
    try:
        yield
    except TimeoutError as error:
        raise ImageNotFetched("The image took too long to fetch.") from error
    except ssl.SSLError as error:
        raise _not_fetched("its server has no secure connection that can be trusted.") from error
    except (OSError, httpcore.ProtocolError) as error:
        raise _not_fetched("the connection to its server broke off.") from error


def _not_fetched(reason: str) -> ImageNotFetched:
    return ImageNotFetched(f"The image cannot be fetched: {reason}")
