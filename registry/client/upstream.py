"""Client of an upstream registry: reads blobs by digest, with authentication."""

import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

from registry.client.settings import UpstreamSettings
from registry.client.web import Answer, Web
from registry.errors import UpstreamError

_HOPS = 5
"""Maximum number of requests for one blob, including the challenge and redirects."""

_OK, _UNAUTHORIZED = 200, 401
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True, slots=True)
class Upstream:
    """The registry of `[upstream]`.

    A path in its URL is prepended to repository names, as required by registries that mirror
    several others. If the user name is empty, requests are anonymous. The password is sent only to
    the origin of the URL, including a token endpoint of that origin.
    """

    web: Web
    settings: UpstreamSettings

    @property
    def url(self) -> str:
        """URL of the registry."""
        return self.settings.url

    @contextlib.asynccontextmanager
    async def open_blob(
        self, repository: str, digest: str, size: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a blob of the registry. Its digest is not verified.

        Raises UpstreamError if the blob is not available, cannot be read, or has more than `size`
        bytes.
        """
        prefix = urlsplit(self.url).path.strip("/")
        name = f"{prefix}/{repository}" if prefix else repository
        url = urljoin(self.url, f"/v2/{name}/blobs/{digest}")
        headers: Mapping[str, str] = {}
        for _ in range(_HOPS):
            async with self.web.get(url, headers) as answer:
                if answer.status == _OK:
                    yield answer.iter_body(size)
                    return
                if answer.status in _REDIRECTS and "Location" in answer.headers:
                    # A redirect carries its own signature. The token must not be sent to another
                    # host.
                    url, headers = _follow(url, answer), {}
                elif answer.status == _UNAUTHORIZED and not headers:
                    headers = await self._sign_in(answer, name)
                else:
                    raise UpstreamError(f"{answer.where} returned status {answer.status}")
        raise UpstreamError(f"{self.url} redirects too many times")

    async def _sign_in(self, answer: Answer, name: str) -> Mapping[str, str]:
        """Return the headers that answer the challenge (Distribution token specification)."""
        if _origin(answer.where) != _origin(self.url):
            raise UpstreamError(
                f"{answer.where} requires authentication, but is another origin than the upstream"
            )
        scheme, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
        if scheme.lower() == "basic" and self.settings.username:
            return self._basic()
        if scheme.lower() != "bearer":
            raise UpstreamError(
                f"{answer.where} requires a type of authentication that is not configured"
            )
        asked = parse_keqv_list([part for part in parse_http_list(rest) if "=" in part])
        realm = asked.get("realm", "")
        if _origin(realm) != _origin(self.url):
            raise UpstreamError(f"{answer.where} names a token endpoint of another origin")
        query = {"service": asked.get("service", ""), "scope": f"repository:{name}:pull"}
        joint = "&" if "?" in realm else "?"
        made = await self.web.get_json(f"{realm}{joint}{urlencode(query)}", self._basic())
        token = made.get("token") or made.get("access_token") if isinstance(made, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise UpstreamError(f"{answer.where} returned no valid token")
        return {"Authorization": f"Bearer {token}"}

    def _basic(self) -> Mapping[str, str]:
        if not self.settings.username:
            return {}
        both = base64.b64encode(
            f"{self.settings.username}:{self.settings.password}".encode()
        ).decode()
        return {"Authorization": f"Basic {both}"}


def _follow(url: str, answer: Answer) -> str:
    try:
        return urljoin(url, answer.headers["Location"])
    except ValueError:
        raise UpstreamError(f"{answer.where} redirects to an invalid address") from None


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port, or None for an invalid URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    return parts.scheme, parts.hostname or "", port
