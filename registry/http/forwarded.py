"""The client address and the URL of the registry, as reported by trusted proxies.

A client is the peer of its connection unless that peer is a trusted proxy. In that case the headers
of the proxy count, and those of further trusted proxies behind it, read from the right, where the
nearest proxy wrote. Values that a client could have written itself are not used, and invalid values
are ignored.
"""

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import zip_longest
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.units import Network

# Strict, because the host is written into headers: no quotes, control characters or user names.
_HOST = re.compile(
    r"(?:[A-Za-z0-9._-]{1,255}|\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\])(?::(?P<port>[0-9]{1,5}))?"
)
_PORTS = 1 << 16
_WITH_PORT = re.compile(r"(?P<ipv4>[0-9.]+):[0-9]+|\[(?P<ipv6>[^\]%]+)\](:[0-9]+)?")
# RFC 7239. The relevant values contain no comma, semicolon or escape, so no others are parsed.
_PAIR = re.compile(r"(?P<name>[^=\s\"]+)=(?:\"(?P<quoted>[^\"\\]*)\"|(?P<plain>[^\"\\\s]+))")
_SCHEMES = {"http", "https"}


class _Hop(NamedTuple):
    """The values that one proxy reports about the request it received; empty if not reported."""

    address: str = ""
    scheme: str = ""
    host: str = ""


class ForwardedHeadersMiddleware:
    """ASGI middleware that sets `client`, `scheme`, `moorage.base` and `moorage.host` in the scope.

    `moorage.base` is the URL of the registry as this client reaches it, without a trailing slash.
    `moorage.host` is the raw `Host` header of the client, empty without one.
    """

    def __init__(self, app: ASGIApp, trusted: tuple[Network, ...], external_url: str) -> None:
        """Use `external_url`, if it is not empty, as the base of every request."""
        self._app = app
        self._trusted = trusted
        self._external_url = external_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = self._placed(scope)
        await self._app(scope, receive, send)

    def _placed(self, scope: Scope) -> Scope:
        headers = Headers(scope=scope)
        client = scope.get("client")
        told = self._ask(client, headers, local=_is_unix(scope))
        scheme = told.scheme or scope["scheme"]
        host = told.host or _find_own_host(headers, scope)
        return {
            **scope,
            "client": (told.address, 0) if told.address else client,
            "scheme": scheme,
            "moorage.host": told.host or ",".join(headers.getlist("host")),
            "moorage.base": self._external_url or f"{scheme}://{host}",
        }

    def _ask(self, client: tuple[str, int] | None, headers: Headers, *, local: bool) -> _Hop:
        """Return the valid values that trusted proxies report about the request.

        `local` means that it came over a Unix socket, which only a proxy may write to.
        """
        told = _Hop()
        proxied = local or (client is not None and is_trusted(client[0], self._trusted))
        for hop in _list_hops(headers) if proxied else ():
            address = _read_address(hop.address)
            scheme = hop.scheme.lower()
            told = _Hop(
                told.address if address is None else str(address),
                scheme if scheme in _SCHEMES else told.scheme,
                hop.host if _is_host(hop.host) else told.host,
            )
            if not _trusts(self._trusted, address):
                break  # a client, which may have forged everything to the left
        return told


def is_trusted(host: str, proxies: tuple[Network, ...]) -> bool:
    """Return whether the peer of a connection is one of the trusted proxies."""
    return bool(proxies) and _trusts(proxies, _read_address(host.partition("%")[0]))


def _trusts(proxies: tuple[Network, ...], address: IPv4Address | IPv6Address | None) -> bool:
    return address is not None and any(address in network for network in proxies)


def _list_hops(headers: Headers) -> Iterable[_Hop]:
    """Return the values of each proxy, the nearest first.

    `Forwarded` is read only if there are no `X-Forwarded-…` headers. A proxy that writes those, as
    most do, often passes on a `Forwarded` header that the client forged.
    """
    told = [_split(headers, f"x-forwarded-{name}") for name in ("for", "proto", "host")]
    if any(told):
        return (_Hop(*said) for said in zip_longest(*told, fillvalue=""))
    return _read_forwarded(_split(headers, "forwarded"))


def _split(headers: Headers, name: str) -> list[str]:
    """Return the items of a list header, which may have several lines, from the right."""
    items = (item.strip(" \t") for line in headers.getlist(name) for item in line.split(","))
    return [item for item in items if item][::-1]


def _read_forwarded(elements: list[str]) -> Iterator[_Hop]:
    for element in elements:
        pairs = [_PAIR.fullmatch(pair.strip(" \t")) for pair in element.split(";") if pair.strip()]
        said = {
            pair["name"].lower(): pair["quoted"] or pair["plain"] or "" for pair in pairs if pair
        }
        if len(said) < len(pairs):
            return  # malformed, or a duplicate name
        yield _Hop(said.get("for", ""), said.get("proto", ""), said.get("host", ""))


def _read_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address, without a port; None for anything else, such as `unknown`."""
    if match := _WITH_PORT.fullmatch(text):
        text = match["ipv4"] or match["ipv6"]
    if "%" in text:
        return None  # a zone ID is only valid on the machine that wrote it
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _is_unix(scope: Scope) -> bool:
    """Return whether the request came over a Unix socket, whose address has no port."""
    server = scope.get("server")
    return server is not None and server[1] is None and server[0].startswith("/")


def _is_host(text: str) -> bool:
    match = _HOST.fullmatch(text)
    if match is None or int(match["port"] or 0) >= _PORTS:
        return False
    if match["ipv6"] is None:
        return True
    try:
        IPv6Address(match["ipv6"])
    except ValueError:
        return False
    return True


def _find_own_host(headers: Headers, scope: Scope) -> str:
    """Return the host and port from the request, else the address that the server listens on."""
    named = headers.getlist("host")
    if len(named) == 1 and _is_host(named[0]):
        return named[0]
    address, port = scope.get("server") or ("", None)
    own = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return own if _is_host(own) else "localhost"  # a Unix socket
