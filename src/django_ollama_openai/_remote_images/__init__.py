"""Fetch the images that a request names by http(s) URL; every URL may be an attack.

The client chooses the URL and the server makes the connection. The server's private network and its
cloud's metadata service must stay out of the client's reach:

* :mod:`rules` has the rules for URLs and addresses, and all limits.
* :mod:`network` resolves a host name once for each connection, requires every address to be
  allowed, and connects to one of these addresses. A name that changes its address gains nothing.
* :mod:`fetch` sends ``GET`` requests without cookies, credentials and proxies, follows redirects
  according to the rules, and checks the response.

Errors do not reveal why a server cannot be reached. Otherwise a client could map a network.
"""

from __future__ import annotations

from .fetch import afetch_images, fetch_images
from .rules import FetchRules, ImageNotFetched, is_public

__all__ = ["FetchRules", "ImageNotFetched", "afetch_images", "fetch_images", "is_public"]
