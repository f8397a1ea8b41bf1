"""Protection against requests that a web page makes a browser send.

Sources: RFC 6454 and the Fetch Metadata specification for cross-site requests. DNS rebinding, where
a name of another site resolves to this machine, can be detected only by the `Host` header.
"""

import re
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

from registry.errors import DeniedError
from registry.http.settings import HttpSettings

_OWN_SITE = {"same-origin", "none"}
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]*)?")


class Sites:
    """The host names and page origins from which requests are accepted."""

    def __init__(self, settings: HttpSettings) -> None:
        self._local = settings.is_local
        self._own_host = urlsplit(settings.external_url).netloc.lower()
        self._own_name = _read_name(self._own_host)
        self._origins = frozenset(settings.cors_origins)

    def require_known_host(self, request: Request) -> None:
        """Raise DeniedError for a request to a host name that another site may control.

        This is checked only if nobody needs to sign in: otherwise a page has no credentials to
        send.
        """
        host = str(request.scope["moorage.host"])
        if host and not self._is_known(_read_name(host)):
            raise DeniedError(
                f"this registry is open to everybody, but {host[:255]} is not one of its names: "
                "set "
                "http.external_url to the address that clients use, or add a user so that "
                "clients must sign in (moorage user add NAME --admin)"
            )

    def require_own_page(self, request: Request) -> None:
        """Raise DeniedError for a request that a page of another site made a browser send."""
        origins = request.headers.getlist("origin")
        if origins and all(self.allows(origin) for origin in origins):
            return
        site = request.headers.get("sec-fetch-site", "none")
        if site not in _OWN_SITE or not all(_is_own(origin, request) for origin in origins):
            raise DeniedError(
                "cross-site requests are not allowed; http.cors_origins lists the pages that may "
                "use this registry"
            )

    def is_own(self, request: Request, host: str) -> bool:
        """Return whether `host` is the host of this registry, with the port if it has one."""
        return host.lower() in {self._own_host, str(request.scope["moorage.host"]).lower()}

    def allows(self, origin: str) -> bool:
        """Return whether the settings list the origin of a page."""
        return "*" in self._origins or self.lists(origin)

    def lists(self, origin: str) -> bool:
        """Return whether the settings list the origin by name.

        Only its pages may send a browser's credentials; `*` does not allow that.
        """
        return origin in self._origins

    def _is_known(self, name: str) -> bool:
        if not name:
            return False
        if name in {self._own_name, "localhost"} or name.endswith(".localhost"):
            return True
        is_loopback = _find_loopback(name)
        if is_loopback is None:
            # Nobody can register a name without a dot, so it is a name of the local network.
            return not self._local and "." not in name
        # A page of another site cannot have a loopback address of this machine as its host.
        return not self._local or is_loopback


@lru_cache(maxsize=256)
def _find_loopback(name: str) -> bool | None:
    """Return whether an address is one of the loopback interface; None if it is no address."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return None


def _read_name(host: str) -> str:
    """Return the name or address in a `Host` header, in lower case; empty if it is invalid."""
    match = _HOST.fullmatch(host)
    return (match["ipv6"] or match["name"]).lower().removesuffix(".") if match else ""


def _is_own(origin: str, request: Request) -> bool:
    """Return whether the page belongs to this registry.

    A proxy may have terminated TLS, so without a setting only host and port can be compared.
    """
    base = urlsplit(str(request.scope["moorage.base"]))
    named = origin.lower()
    if named == f"{base.scheme}://{base.netloc}".lower():
        return True
    host = str(request.scope["moorage.host"]).lower()
    return bool(host) and named in {f"http://{host}", f"https://{host}"}
