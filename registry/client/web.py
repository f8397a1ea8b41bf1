"""HTTP requests to other servers, whose names, certificates and responses are untrusted."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from registry.client.addresses import Address, is_private, is_public, parse_address
from registry.errors import ConfigError, UpstreamError

MAX_DOCUMENT = 1 << 20
"""Maximum size of a document, in bytes."""

CONNECT = 5.0
"""Timeout of a connection to one address, in seconds."""

WHOLE = 10.0
"""Timeout of a whole request, from name resolution to the last byte, in seconds."""

_PORTS = range(1, 1 << 16)
# A compressed response could expand beyond the size limit.
_HEADERS = {"Accept-Encoding": "identity"}
_NONE: Mapping[str, str] = MappingProxyType({})


class Answer:
    """A response of another server. `where` is its scheme, host and port."""

    def __init__(self, where: str, response: httpx.Response) -> None:
        self.where = where
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response

    async def iter_body(self, most: int) -> AsyncIterator[bytes]:
        """Yield the body.

        Raises UpstreamError if it is interrupted, idle for WHOLE seconds, encoded, or larger than
        `most` bytes.
        """
        if self.headers.get("Content-Encoding", "identity") != "identity":
            raise UpstreamError(f"{self.where} returned an encoding that was not requested")
        count = 0
        try:
            async for piece in self._response.aiter_raw():
                count += len(piece)
                if count > most:
                    raise UpstreamError(f"{self.where} returned more than {most} bytes")
                yield piece
        except httpx.HTTPError as error:
            raise _bad(self.where, error) from None


class Web:
    """An HTTPS client that calls only public addresses unless `allow_private` is set.

    With it, private addresses may be called as well, also with plain HTTP. `ca_file` contains PEM
    certificates of authorities that are trusted in addition to the system's. Raises ConfigError if
    it is unusable.
    """

    def __init__(self, *, allow_private: bool = False, ca_file: Path | None = None) -> None:
        self._allow_private = allow_private
        self._tls = ssl.create_default_context()
        if ca_file is not None:
            try:
                self._tls.load_verify_locations(ca_file)
            except OSError as error:  # includes ssl.SSLError
                raise ConfigError(
                    f"cannot use the CA certificates in {ca_file}: {error.strerror}"
                ) from error

    async def get_json(self, url: str, headers: Mapping[str, str] = _NONE) -> Any:
        """Return the JSON document at `url`. Raises UpstreamError if it cannot be fetched.

        The error message never contains text of the other server.
        """
        where = _place(_parse(url))
        try:
            async with asyncio.timeout(WHOLE):
                async with self.get(url, {"Accept": "application/json", **headers}) as answer:
                    raw = await _read(answer)
        except TimeoutError:
            raise UpstreamError(f"{where} did not respond within {WHOLE:.0f} s") from None
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise UpstreamError(f"{where} returned a document that is not JSON") from None

    @contextlib.asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str] = _NONE) -> AsyncIterator[Answer]:
        """Request `url`. Raises UpstreamError if there is no response.

        Redirects are not followed.
        """
        target = _parse(url)
        where = _place(target)
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(WHOLE):
                    addresses = await self._resolve(target, where)
                    client = await stack.enter_async_context(self._open(target, headers))
                    response = await _send(client, target, addresses, where)
                    stack.push_async_callback(response.aclose)
            except TimeoutError:
                raise UpstreamError(f"{where} did not respond within {WHOLE:.0f} s") from None
            yield Answer(where, response)

    def _open(self, target: httpx.URL, headers: Mapping[str, str]) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._tls,
            trust_env=False,
            timeout=httpx.Timeout(WHOLE, connect=CONNECT),
            headers={**_HEADERS, **headers, "Host": target.netloc.decode()},
        )

    async def _resolve(self, target: httpx.URL, where: str) -> list[str]:
        """Return all addresses of the host.

        Raises UpstreamError unless all of them may be called.
        """
        host = target.raw_host.decode()
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, None, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError):  # UnicodeError: a label of more than 63 characters
            raise UpstreamError(f"cannot resolve the host name of {where}") from None
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        if not all(self._may_call(target.scheme, parse_address(text)) for text in addresses):
            raise UpstreamError(
                f"{where} has an address that must not be called by {target.scheme}"
            )
        return addresses

    def _may_call(self, scheme: str, address: Address) -> bool:
        if self._allow_private and is_private(address):
            return True
        return scheme == "https" and is_public(address)


async def _send(
    client: httpx.AsyncClient, target: httpx.URL, addresses: list[str], where: str
) -> httpx.Response:
    problem = ""
    for address in addresses:
        # Connect to the checked addresses: another lookup of the name could return different ones.
        request = client.build_request(
            "GET",
            target.copy_with(host=address),
            extensions={"sni_hostname": target.raw_host.decode()},
        )
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            problem = str(error) or f"no connection within {CONNECT:.0f} s"
            if "CERTIFICATE_VERIFY_FAILED" in problem:
                problem += (
                    ". If its certificate is from a private CA, set ca_file in the same "
                    "section of the settings"
                )
        except httpx.HTTPError as error:
            raise _bad(where, error) from None
    raise UpstreamError(f"cannot reach {where}: {problem}") from None


def _bad(where: str, error: httpx.HTTPError) -> UpstreamError:
    # The error text may quote the response.
    return UpstreamError(f"{where} sent an invalid response ({type(error).__name__})")


async def _read(answer: Answer) -> bytes:
    if answer.status != httpx.codes.OK:
        raise UpstreamError(f"{answer.where} returned status {answer.status}, not 200")
    raw = bytearray()
    async for piece in answer.iter_body(MAX_DOCUMENT):
        raw += piece
    return bytes(raw)


def _place(target: httpx.URL) -> str:
    return f"{target.scheme}://{target.netloc.decode()}"


def _parse(url: str) -> httpx.URL:
    """Parse a URL. Raises UpstreamError if it has no host or contains credentials."""
    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):  # ValueError: a lone surrogate
        raise UpstreamError("a URL cannot be parsed") from None
    if target.scheme not in {"http", "https"} or not target.host:
        raise UpstreamError("a URL lacks the scheme https or a host")
    if target.port is not None and target.port not in _PORTS:
        raise UpstreamError(f"the URL of {target.host} has an invalid port")
    if target.userinfo:
        raise UpstreamError(f"the URL of {target.host} contains credentials")
    return target
