"""Client of a registry's admin API, for the command line."""

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from registry.errors import ConfigError, RemoteRefusedError, UpstreamError
from registry.logs import LONGEST_MESSAGE, cut
from registry.units import is_loopback

_MOST_MESSAGES = 20
_SECONDS = 60.0
_BASE = "/api/v1"


@dataclass(frozen=True, slots=True)
class SignIn:
    """Credentials: either a token, or a user's name and password."""

    name: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


class AdminClient:
    """A client of `/api/v1` of the registry at `url`.

    The operator has chosen the address, so private networks are allowed. `ca_file` contains PEM
    certificates of authorities that are trusted in addition to the system's. Redirects are not
    followed, so the password is sent only to `url`. Raises ConfigError for an unusable `url` or
    `ca_file`.
    """

    def __init__(self, url: str, sign_in: SignIn, ca_file: Path | None = None) -> None:
        tls = ssl.create_default_context()
        if ca_file is not None:
            try:
                tls.load_verify_locations(ca_file)
            except OSError as error:  # includes ssl.SSLError
                raise ConfigError(
                    f"cannot use the CA certificates in {ca_file}: {error.strerror}"
                ) from error
        self._where = url.removesuffix("/")
        base = _parse(self._where)
        self.readable = base.scheme == "http" and not is_loopback(base.host)
        """Whether the password is sent unencrypted to another host."""
        headers = {"Authorization": f"Bearer {sign_in.token}"} if sign_in.token else {}
        self._client = httpx.AsyncClient(
            base_url=f"{self._where}{_BASE}",
            auth=None if sign_in.token else httpx.BasicAuth(sign_in.name, sign_in.password),
            headers=headers,
            verify=tls,
            trust_env=False,
            timeout=_SECONDS,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(
        self, method: str, path: str, query: dict[str, str], body: dict[str, Any] | None
    ) -> Any:
        """Send a request. Return the JSON of the response, or None if it is empty.

        Raises RemoteRefusedError with the registry's messages, and UpstreamError if no registry
        responds.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._client.request(method, path, params=query, json=body)
        except (httpx.HTTPError, TimeoutError) as error:
            reason = _shorten(str(error)) or "no response"
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                reason += (
                    ". If its certificate is from a private CA, name the CA certificate "
                    "with --ca-file FILE"
                )
            raise UpstreamError(f"cannot reach {self._where}: {reason}") from None
        if answer.is_redirect:
            raise UpstreamError(f"{self._where} redirects to another address; use that address")
        try:
            document: Any = answer.json() if answer.content else None
            if answer.is_success:
                return document
            messages = [_shorten(str(error["message"])) for error in document["errors"]]
        except (ValueError, RecursionError, KeyError, TypeError):
            raise UpstreamError(
                f"{self._where} returned status {answer.status_code}, but not as Moorage "
                "does; check the address"
            ) from None
        raise RemoteRefusedError("; ".join(messages[:_MOST_MESSAGES]))


def _shorten(text: str) -> str:
    """Return the text of another server as one line of limited length."""
    return cut(" ".join(text.split()), LONGEST_MESSAGE)


def _parse(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        base = httpx.URL()
    if base.scheme not in {"http", "https"} or not base.host or base.query or base.userinfo:
        raise ConfigError(
            "--url must be the address of a registry, such as https://registry.example.org"
        )
    return base
