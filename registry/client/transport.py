"""HTTP/1.1 connections to other servers, whose names, certificates and responses are untrusted.

Connections are pooled by scheme, host and port. The pool is that of httpcore, on which httpx is
built, because httpx does not allow its client to choose how a connection is opened: here, a name is
resolved once, and the connection goes to the address that was checked. See
`docs/adr/mirrors/0023-upstream-client.md`.
"""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpcore

from registry.client.addresses import Address, is_private, is_public, parse_address
from registry.client.network import Network, refused_address
from registry.client.response import FAILED, Deadlines, Response, invalid_response
from registry.client.targets import Target
from registry.errors import (
    ConfigError,
    UpstreamBusyError,
    UpstreamProtocolError,
    UpstreamUnavailableError,
)

_KEEP_IDLE_S = 30.0

_LOST = (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError)
"""Errors of a kept connection that the server has closed in the meantime."""


class Transport:
    """A pool of up to `max_connections` connections, kept open between requests.

    Only public addresses are called, unless `allow_private` is set: then private ones may be called
    as well, also with plain HTTP. With a proxy, which resolves the names, only addresses in URLs
    can be checked. `ca_file` contains PEM certificates of authorities that are trusted in addition
    to the system's. Raises ConfigError if it or the proxy is unusable.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        ca_file: Path | None = None,
        proxy: str = "",
        max_connections: int = 16,
        deadlines: Deadlines | None = None,
    ) -> None:
        self.deadlines = deadlines or Deadlines()
        self.max_connections = max_connections
        self._allow_private = allow_private
        self._proxy = _parse_proxy(proxy) if proxy else None
        self._tls = load_authorities(ca_file)
        # httpcore leaks a slot of its own limit if a request that waits for one is cancelled
        # (encode/httpcore#1093).
        self._free = asyncio.Semaphore(max_connections)
        self._pools = {scheme: self._open_pool(scheme) for scheme in ("http", "https")}

    async def open(
        self, method: str, target: Target, headers: Mapping[str, str], content: bytes = b""
    ) -> Response:
        """Send a request, and return the response. The caller must close it.

        Redirects are not followed. The caller limits the time. Raises UpstreamAddressError,
        UpstreamProtocolError and UpstreamUnavailableError.
        """
        self._require_allowed(target)
        request = self._build(method, target, headers, content)
        await self._acquire(target)
        try:
            answer = await self._send(request, target)
        except BaseException:
            self._free.release()
            raise
        response = Response(target.origin, answer, self.deadlines, self._free.release)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            await response.close()
            raise UpstreamProtocolError(
                f"{target.origin} returned an encoding that was not requested"
            )
        return response

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

    def _build(
        self, method: str, target: Target, headers: Mapping[str, str], content: bytes
    ) -> httpcore.Request:
        limits = self.deadlines
        sent = {
            "Host": target.authority,
            "Accept-Encoding": "identity",  # a compressed response could exceed every limit
            "User-Agent": "moorage",
            **headers,
        }
        if content:
            sent["Content-Length"] = str(len(content))
        return httpcore.Request(
            method,
            httpcore.URL(
                scheme=target.scheme, host=target.host, port=target.port, target=target.path
            ),
            headers=list(sent.items()),
            content=content,
            extensions={
                "timeout": {
                    "connect": limits.connect_s,
                    "read": limits.progress_s,
                    "write": limits.progress_s,
                }
            },
        )

    async def _acquire(self, target: Target) -> None:
        try:
            async with asyncio.timeout(self.deadlines.free_s):
                await self._free.acquire()
        except TimeoutError:
            raise UpstreamBusyError(
                f"all {self.max_connections} connections to {target.origin} are in use"
            ) from None

    async def _send(self, request: httpcore.Request, target: Target) -> httpcore.Response:
        pool = self._pools[target.scheme]
        origin = request.url.origin
        kept = any(each.is_idle() and each.can_handle_request(origin) for each in pool.connections)
        try:
            try:
                return await pool.handle_async_request(request)
            except _LOST:
                if not kept:
                    raise
                return await pool.handle_async_request(request)
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError) as error:
            raise UpstreamUnavailableError(self._explain(target, error)) from None
        except FAILED as error:
            raise invalid_response(target.origin, error) from None

    def _explain(self, target: Target, error: Exception) -> str:
        if isinstance(error, httpcore.ProxyError):  # its text is the answer of the proxy
            return f"the proxy does not connect to {target.origin}"
        problem = str(error) or f"no connection within {self.deadlines.connect_s:g} s"
        if "CERTIFICATE_VERIFYFAILED" in problem:
            problem += ". If its certificate is from a private CA, set the CA file"
        return f"cannot reach {target.origin}: {problem}"

    def _open_pool(self, scheme: str) -> httpcore.AsyncConnectionPool:
        def check(address: Address) -> bool:
            return self._proxy is not None or self._may_call(scheme, address)

        return httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            proxy=self._proxy,
            max_connections=None,
            max_keepalive_connections=self.max_connections,
            keepalive_expiry=_KEEP_IDLE_S,
            network_backend=Network(check),
        )

    def _may_call(self, scheme: str, address: Address) -> bool:
        if self._allow_private and is_private(address):
            return True
        return scheme == "https" and is_public(address)

    def _require_allowed(self, target: Target) -> None:
        """Refuse what is known before a name is resolved, also if a proxy resolves it."""
        try:
            address = parse_address("127.0.0.1" if target.host == "localhost" else target.host)
        except ValueError:
            allowed = target.scheme == "https" or self._allow_private
        else:
            allowed = self._may_call(target.scheme, address)
        if not allowed:
            raise refused_address(target.origin)


def load_authorities(ca_file: Path | None) -> ssl.SSLContext:
    """Return a TLS context of the system's authorities and those in `ca_file`.

    Raises ConfigError if the file cannot be used.
    """
    tls = ssl.create_default_context()
    if ca_file is not None:
        try:
            tls.load_verify_locations(ca_file)
        except OSError as error:  # includes ssl.SSLError
            raise ConfigError(
                f"cannot use the CA certificates in {ca_file}: {error.strerror}"
            ) from error
    return tls


def _parse_proxy(url: str) -> httpcore.Proxy:
    try:
        parts = urlsplit(url)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        target = Target.parse(bare.geturl())
    except (ValueError, UpstreamProtocolError):
        raise ConfigError("the proxy must be a URL such as http://proxy.example.org:3128") from None
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return httpcore.Proxy(f"{target.scheme}://{target.authority}", auth=auth)
