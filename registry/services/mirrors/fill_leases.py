"""Leases of fills: one process fetches a blob for a repository, and names the bytes to others."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from registry.auth.policy.principals import MIRROR
from registry.errors import DatabaseUnavailableError
from registry.metadata.engine import leases
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from storage.digest import Digest

LEASE_S = 15.0
"""Seconds after which another process may fetch the blob of a dead process."""

HEARTBEAT_S = 4.0
"""Seconds between extensions of the lease of a running fill."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a lease. `session` and `size` are set once the bytes can be read."""

    token: str
    session: str = ""
    size: int = 0

    @classmethod
    def parse(cls, text: str) -> "Holder":
        token, session, size = text.split(" ")
        return cls(token, session, int(size))

    def __str__(self) -> str:
        return f"{self.token} {self.session} {self.size}"


@dataclass
class FillLease:
    """A lease that this process holds."""

    database: Database
    name: str
    holder: Holder = field(default_factory=lambda: Holder(uuid.uuid4().hex))
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def claim(self) -> bool:
        """Take or extend the lease. Returns False if another process holds it."""

        def work(tx: Transaction) -> bool:
            leases.delete_expired(tx, leases.FILL)
            return leases.claim(tx, self.name, str(self.holder), LEASE_S)

        async with self.busy:
            return await self.database.write(work, actor=MIRROR.name, durable=False)

    async def publish(self, session: str, size: int) -> None:
        """Name the upload session that receives the bytes, so that other processes can read it."""
        async with self.busy:
            old, new = self.holder, Holder(self.holder.token, session, size)
            if await self.database.write(
                lambda tx: leases.replace_holder(tx, self.name, str(old), str(new)),
                actor=MIRROR.name,
                durable=False,
            ):
                self.holder = new

    async def beat(self) -> None:
        """Extend the lease until it is lost, which costs a second fetch and nothing else."""
        is_held = True
        while is_held:
            await asyncio.sleep(HEARTBEAT_S)
            with contextlib.suppress(DatabaseUnavailableError):
                is_held = await self.claim()


class FillLeases:
    """The leases of fills."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @contextlib.asynccontextmanager
    async def hold(self, name: RepositoryName, digest: Digest) -> AsyncIterator[FillLease | None]:
        """Hold the lease of a blob. Yields None if another process holds it."""
        lease = FillLease(self._db, _name(name, digest))
        if not await lease.claim():
            yield None
            return
        beating = asyncio.create_task(lease.beat())
        try:
            yield lease
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            with contextlib.suppress(DatabaseUnavailableError):  # it expires
                await self.release(name, digest, lease.holder)

    async def find(self, name: RepositoryName, digest: Digest) -> Holder | None:
        """Return the process that holds the lease of a blob."""
        lease = _name(name, digest)
        text = await self._db.read(lambda tx: leases.find_holder(tx, lease))
        return None if text is None else Holder.parse(text)

    async def release(self, name: RepositoryName, digest: Digest, holder: Holder) -> None:
        """Release a lease of this process or of a dead one."""
        lease = _name(name, digest)
        await self._db.write(
            lambda tx: leases.release(tx, lease, str(holder)), actor=MIRROR.name, durable=False
        )


def _name(name: RepositoryName, digest: Digest) -> str:
    return f"{leases.FILL}{name}/{digest}"
