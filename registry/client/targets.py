"""URLs of other servers, which may come from untrusted responses."""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urljoin, urlsplit

from registry.errors import UpstreamProtocolError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,253}[a-z0-9_.])?|[0-9a-f:.]{2,45}")
_SAFE = "%/?:@!$&'()*+,;=~#[]"
_LONGEST = 8192


@dataclass(frozen=True, slots=True)
class Target:
    """An http or https URL, split into what a request needs. Its text never has credentials."""

    scheme: str
    host: str
    """Lower case, without the brackets of an IPv6 address."""
    port: int
    path: str
    """Path and query, percent-encoded."""

    @classmethod
    def parse(cls, url: str, base: "Target | None" = None) -> Self:
        """Parse a URL, relative to `base` if that is given.

        Raises UpstreamProtocolError if it has another scheme, no host, or credentials.
        """
        try:
            parts = urlsplit(urljoin(f"{base.origin}{base.path}", url) if base else url)
            port = parts.port if parts.port is not None else _DEFAULT_PORTS.get(parts.scheme, 0)
        except ValueError:
            raise UpstreamProtocolError("a URL cannot be parsed") from None
        host = (parts.hostname or "").lower()
        if parts.scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host):
            raise UpstreamProtocolError("a URL lacks the scheme http or https or a valid host")
        if "@" in parts.netloc:
            raise UpstreamProtocolError(f"the URL of {host} contains credentials")
        if not port or len(url) > _LONGEST or not url.isprintable():
            raise UpstreamProtocolError(f"the URL of {host} is invalid")
        query = f"?{parts.query}" if parts.query else ""
        try:
            path = quote(f"{parts.path or '/'}{query}", safe=_SAFE)
        except UnicodeError:
            raise UpstreamProtocolError(f"the URL of {host} is invalid") from None
        return cls(parts.scheme, host, port, path)

    @property
    def authority(self) -> str:
        """Host and port as in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = self.port == _DEFAULT_PORTS[self.scheme]
        return host if default else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port, in the same form for equal origins."""
        return f"{self.scheme}://{self.authority}"

    def with_path(self, path: str) -> "Target":
        """Return the URL of another path and query on the same server."""
        return Target(self.scheme, self.host, self.port, path)
