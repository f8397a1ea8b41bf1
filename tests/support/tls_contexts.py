"""A cache for the TLS contexts of HTTP clients in tests.

httpx reads all certificates of the system for each client, and for each call without a client, even
if the URL has no TLS. This takes 20 ms of processor time.
"""

import functools
import os
import ssl

from httpx import create_ssl_context
from httpx._transports import default

PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Environment variables that name the certificates."""


@functools.cache
def _read(*, trust_env: bool, places: tuple[str | None, ...]) -> ssl.SSLContext:
    del places  # a part of the key
    return create_ssl_context(trust_env=trust_env)


def _find(
    verify: ssl.SSLContext | str | bool = True,
    cert: str | tuple[str, str] | tuple[str, str, str] | None = None,
    trust_env: bool = True,
) -> ssl.SSLContext:
    if verify is True and cert is None:
        return _read(trust_env=trust_env, places=tuple(map(os.environ.get, PLACES)))
    return create_ssl_context(verify, cert, trust_env)


def install() -> None:
    """Make httpx read the certificates of the system once in this process."""
    vars(default)["create_ssl_context"] = _find
