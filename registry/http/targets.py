"""The repository that a request is about: the one in its path, or one of a mirror."""

from dataclasses import dataclass

from starlette.requests import Request

from registry.auth.caller import Caller
from registry.auth.policy.actions import Action
from registry.http.sites import Sites
from registry.oci.names import RepositoryName
from registry.services.mirrors.lookup import MirrorLookup, MirrorSet
from registry.services.mirrors.mirror import Mirrored

_READS = {"GET", "HEAD"}
_BLOBS = "/blobs/"


@dataclass(frozen=True, slots=True)
class Target:
    """The repository of a request, and the host in `ns` if that selected it.

    `default` is the repository of the default mirror that has the name of the request. It counts
    only for a caller who may pull from it.
    """

    repository: RepositoryName | None
    mirrors: MirrorSet | None = None
    namespace: str | None = None
    default: Mirrored | None = None

    @property
    def names(self) -> tuple[RepositoryName | None, ...]:
        """The repositories, of which the caller must be able to use one."""
        return (self.repository,) if self.default is None else (self.repository, self.default.name)

    def find_default(self, caller: Caller) -> Mirrored | None:
        """Return the repository of the default mirror, if the request of the caller goes there.

        A token for a push never leads to a mirror: a client that pushes asks first what exists.
        """
        if self.default is None or not caller.may_pull(self.default.name):
            return None
        pushes = caller.scopes is not None and caller.may(Action.PUSH, self.repository)
        return None if pushes else self.default


class Targets:
    """Finds the repositories of requests."""

    def __init__(self, lookup: MirrorLookup, sites: Sites) -> None:
        self._lookup = lookup
        self._sites = sites

    async def find(self, request: Request, action: Action) -> Target:
        """Return the target of a request.

        Clients of mirrors name the registry of an image in `ns`. Without mirrors, and for the host
        of this registry, it is ignored. Raises NameInvalidError, and RepositoryUnknownError if no
        mirror has images of that registry.
        """
        text = request.path_params.get("name")
        if text is None:
            return Target(None)
        mirrors = await self._lookup.get(request.scope["moorage.began"])
        name = RepositoryName.parse(text)
        if not (mirrors and request.method in _READS):
            return Target(name, mirrors)
        host = request.query_params.get("ns")
        if host and self._sites.is_own(request, host):
            return Target(name, mirrors)
        if host:
            return Target(mirrors.find_of_host(host, name), mirrors, host)
        default = mirrors.find_default(name) if action is Action.PULL else None
        if default is not None:
            # A push asks for blobs first, a pull for the manifest. So only the latter may leave.
            cached = default.name if _BLOBS in request.scope["moorage.route"] else None
            if not await self._lookup.is_free(name, cached):
                default = None
        return Target(name, mirrors, default=default)
