"""The mirrors in force, in memory, by the prefixes and hosts that requests name."""

import asyncio

from registry.errors import NameInvalidError, RepositoryUnknownError
from registry.metadata.access import policy
from registry.metadata.content import repositories
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import mirrors
from registry.metadata.mirrors.mirrors import MirrorRow
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from registry.services.mirrors.mirror import DefaultFor, Mirror, Mirrored


class MirrorSet:
    """All mirrors as of one revision of the policy."""

    def __init__(self, revision: int, rows: list[MirrorRow]) -> None:
        self.revision = revision
        self._all = [Mirror.of_row(row) for row in rows]
        self._by_prefix = {str(each.prefix): each for each in self._all}
        self._by_host = {host: each for each in self._all for host in each.options.hosts}
        self._default = next((each for each in self._all if each.default_for), None)

    def __bool__(self) -> bool:
        return bool(self._all)

    def find(self, name: RepositoryName) -> Mirrored | None:
        """Return the mirrored repository of this name, or None if it is an ordinary one."""
        mirror = self._find_above(str(name))
        if mirror is None:
            return None
        remote = mirror.find_remote(name)
        return Mirrored(mirror, name, remote) if remote is not None else None

    def contains(self, name: RepositoryName) -> bool:
        """Return whether the name is below the prefix of a mirror."""
        return self._find_above(str(name)) is not None

    def has_prefix(self, text: str) -> bool:
        return text in self._by_prefix

    def find_of_host(self, host: str, remote: RepositoryName) -> RepositoryName:
        """Return the repository with the content of a repository of another registry.

        `host` is the value of `ns`. Raises RepositoryUnknownError if no mirror has it, and the
        default mirror is not for such requests.
        """
        mirror = self._by_host.get(host.lower())
        if mirror is None and self._default and self._default.default_for is DefaultFor.ALL:
            mirror = self._default
        if mirror is None:
            raise RepositoryUnknownError(
                f"no mirror has images of {host[:128]!a}; an admin can add one with moorage mirror "
                "add",
                {"ns": host[:255]},
            )
        return mirror.find_local(remote)

    def find_default(self, name: RepositoryName) -> Mirrored | None:
        """Return the repository of the default mirror for a name without a registry.

        Returns None if it does not have the name, or if the name is below the prefix of a mirror
        or has a host as its first component.
        """
        first, slash, _ = str(name).partition("/")
        if self._default is None or (slash and _is_host(first)) or self.contains(name):
            return None
        try:
            return self.find(self._default.find_local(name))
        except NameInvalidError:  # too long with the prefix
            return None

    def find_default_name(self, name: RepositoryName) -> RepositoryName | None:
        """Return the name of the repository that `find_default` returns."""
        found = self.find_default(name)
        return found.name if found is not None else None

    def _find_above(self, name: str) -> Mirror | None:
        # Prefixes do not overlap, so at most one is above the name.
        parent, slash, _ = name.rpartition("/")
        while slash:
            if (found := self._by_prefix.get(parent)) is not None:
                return found
            parent, slash, _ = parent.rpartition("/")
        return None


class MirrorLookup:
    """The current mirrors, read again when the revision of the policy has changed."""

    def __init__(self, database: Database, watch: RevisionWatch) -> None:
        self._db = database
        self._watch = watch
        self._known = MirrorSet(-1, [])
        self._lock = asyncio.Lock()

    async def get(self, since: float) -> MirrorSet:
        """Return the mirrors as of a moment after `since` (of `time.monotonic`)."""
        now = self._watch.latest_known(since) or await self._watch.read(since)
        if self._known.revision == now.policy:
            return self._known
        async with self._lock:
            if self._known.revision < now.policy:
                self._known = await self._db.read(_load)
            return self._known

    async def is_free(self, name: RepositoryName, cached: RepositoryName | None) -> bool:
        """Return whether the default mirror may have a name that a request is about.

        A repository of this registry keeps its name, also for some days after its end. If `cached`
        is given, this repository of the mirror must exist.
        """

        def work(tx: Transaction) -> bool:
            if repositories.is_claimed(tx, name):
                return False
            return cached is None or repositories.find(tx, cached) is not None

        return await self._db.read(work, single=cached is None)


def _is_host(component: str) -> bool:
    """Return whether clients read the first component of a name as a host."""
    return "." in component or component == "localhost"


def _load(tx: Transaction) -> MirrorSet:
    """Return the mirrors as of one revision. Reads again if a change came in between."""
    while True:
        revision = policy.read_revision(tx)
        found = MirrorSet(revision, mirrors.list_all(tx))
        if revision == policy.read_revision(tx):
            return found
