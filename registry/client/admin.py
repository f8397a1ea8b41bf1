"""The admin API of a registry, called for an operator at her command line."""

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from registry.errors import ConfigError, RefusedError, UpstreamError
from registry.logs import LONGEST_MESSAGE, cut
from registry.units import is_loopback

_MOST_MESSAGES = 20
_SECONDS = 60.0
_BASE = "/api/v1"


@dataclass(frozen=True, slots=True)
class SignIn:
    """What to sign in with: a token alone, or a user's name and password."""

    name: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


class AdminClient:
    """Sends requests below `/api/v1` of the registry at `url`.

    The operator has named the place, so it may be in a private network. `ca_file` holds
    authorities in PEM, trusted beside the system's. Redirects are not followed: a password goes
    where it was sent. Raises ConfigError for what cannot be used.
    """

    def __init__(self, url: str, sign_in: SignIn, ca_file: Path | None = None) -> None:
        tls = ssl.create_default_context()
        if ca_file is not None:
            try:
                tls.load_verify_locations(ca_file)
            except OSError as error:  # ssl.SSLError is one
                raise ConfigError(
                    f"the authorities in {ca_file} cannot be used: {error.strerror}"
                ) from error
        self._where = url.removesuffix("/")
        base = _parse(self._where)
        self.readable = base.scheme == "http" and not is_loopback(base.host)
        """Whether others on the way can read the password."""
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
        """The answer's JSON, None if it has none.

        RefusedError in the registry's own words, UpstreamError where there is no registry.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._client.request(method, path, params=query, json=body)
        except (httpx.HTTPError, TimeoutError) as error:
            reason = _shorten(str(error)) or "it does not answer"
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                reason += (
                    ". Where its certificate is of a private authority, name the authority's "
                    "certificate with --ca-file FILE"
                )
            raise UpstreamError(f"{self._where} cannot be reached: {reason}") from None
        if answer.is_redirect:
            raise UpstreamError(f"{self._where} sends elsewhere; give the address where it ends")
        try:
            document: Any = answer.json() if answer.content else None
            if answer.is_success:
                return document
            messages = [_shorten(str(error["message"])) for error in document["errors"]]
        except (ValueError, RecursionError, KeyError, TypeError):
            raise UpstreamError(
                f"{self._where} answered with status {answer.status_code} and not as a Moorage does"
            ) from None
        raise RefusedError("; ".join(messages[:_MOST_MESSAGES]))


def _shorten(text: str) -> str:
    """The text of another server as one line, and not more than a person reads."""
    return cut(" ".join(text.split()), LONGEST_MESSAGE)


def _parse(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        base = httpx.URL()
    if base.scheme not in {"http", "https"} or not base.host or base.query or base.userinfo:
        raise ConfigError(
            "--url is the address of a registry, such as https://registry.example.org"
        )
    return base
