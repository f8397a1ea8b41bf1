"""JSON documents of other servers, fetched without trust in names, certificates or answers."""

import asyncio
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx

from registry.client.addresses import Address, is_private, is_public, parse_address
from registry.errors import ConfigError, UpstreamError

MAX_DOCUMENT = 1 << 20
"""Bytes of an answer that are read."""

CONNECT = 5.0
"""Seconds that a connection to one address may take."""

WHOLE = 10.0
"""Seconds that everything may take, from the name to the last byte."""

_PORTS = range(1, 1 << 16)
# An encoded answer could unfold to more than was counted.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


class Web:
    """Fetches documents over https, from public addresses unless `allow_private`.

    With it, private ones may be called too, and those by plain http. `ca_file` holds authorities
    in PEM, trusted beside the system's. Raises ConfigError if it cannot be used.
    """

    def __init__(self, *, allow_private: bool = False, ca_file: Path | None = None) -> None:
        self._allow_private = allow_private
        self._tls = ssl.create_default_context()
        if ca_file is not None:
            try:
                self._tls.load_verify_locations(ca_file)
            except OSError as error:  # ssl.SSLError is one
                raise ConfigError(
                    f"the authorities in {ca_file} cannot be used: {error.strerror}"
                ) from error

    async def get_json(self, url: str) -> Any:
        """Return the JSON document at `url`; raise UpstreamError if there is none to be had.

        Redirects are not followed. The message never holds what the other server wrote.
        """
        target = _parse(url)
        where = f"{target.scheme}://{target.netloc.decode()}"
        try:
            async with asyncio.timeout(WHOLE):
                addresses = await self._resolve(target, where)
                raw = await self._fetch(target, addresses, where)
        except TimeoutError:
            raise UpstreamError(f"{where} did not answer within {WHOLE:.0f} s") from None
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise UpstreamError(f"{where} answered with what is not JSON") from None

    async def _resolve(self, target: httpx.URL, where: str) -> list[str]:
        """Return all addresses of the host, each of which may be called."""
        host = target.raw_host.decode()
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, None, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError):  # UnicodeError: a label of more than 63 characters
            raise UpstreamError(f"{where}: the name has no address") from None
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        if not all(self._may_call(target.scheme, parse_address(text)) for text in addresses):
            raise UpstreamError(f"{where} has an address that may not be called by {target.scheme}")
        return addresses

    def _may_call(self, scheme: str, address: Address) -> bool:
        if self._allow_private and is_private(address):
            return True
        return scheme == "https" and is_public(address)

    async def _fetch(self, target: httpx.URL, addresses: list[str], where: str) -> bytes:
        problem = ""
        async with httpx.AsyncClient(
            verify=self._tls,
            trust_env=False,
            timeout=httpx.Timeout(WHOLE, connect=CONNECT),
            headers={**_HEADERS, "Host": target.netloc.decode()},
        ) as client:
            for address in addresses:
                # The name was judged by these addresses; asked again it may have others.
                request = client.build_request(
                    "GET",
                    target.copy_with(host=address),
                    extensions={"sni_hostname": target.raw_host.decode()},
                )
                try:
                    return await _read(client, request, where)
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    problem = str(error) or f"no connection within {CONNECT:.0f} s"
                except httpx.HTTPError as error:
                    # Its text may quote what was received.
                    raise UpstreamError(
                        f"{where} answered badly ({type(error).__name__})"
                    ) from None
        raise UpstreamError(f"{where} cannot be reached: {problem}") from None


async def _read(client: httpx.AsyncClient, request: httpx.Request, where: str) -> bytes:
    response = await client.send(request, stream=True)
    try:
        if response.status_code != httpx.codes.OK:
            raise UpstreamError(f"{where} answered with status {response.status_code}, not 200")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise UpstreamError(f"{where} answered with an encoding that was not asked for")
        raw = bytearray()
        async for piece in response.aiter_raw():
            raw += piece
            if len(raw) > MAX_DOCUMENT:
                raise UpstreamError(f"{where} answered with more than {MAX_DOCUMENT} bytes")
        return bytes(raw)
    finally:
        await response.aclose()


def _parse(url: str) -> httpx.URL:
    """Return the URL; raise UpstreamError if it names no place or carries credentials."""
    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):  # ValueError: of a lone surrogate
        raise UpstreamError("a URL cannot be read") from None
    if target.scheme not in {"http", "https"} or not target.host:
        raise UpstreamError("a URL lacks the scheme https or a host")
    if target.port is not None and target.port not in _PORTS:
        raise UpstreamError(f"the URL of {target.host} has a port that there is not")
    if target.userinfo:
        raise UpstreamError(f"the URL of {target.host} carries credentials")
    return target
