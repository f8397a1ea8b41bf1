"""The audit log, read and trimmed."""

from registry import clock
from registry.metadata import audit
from registry.metadata.audit import AuditRow
from registry.metadata.database import Database

__all__ = ["Audit", "AuditRow"]

_AT_ONCE = 1000


class Audit:
    """What happened: sign-ins that failed, tokens issued, changes of who may do what."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def list_page(
        self, n: int, *, after: int = 0, since: int = 0, actor: str | None = None
    ) -> list[AuditRow]:
        """At most `n` events after the number `after`, since a time in µs; oldest first."""
        return await self._db.read(
            lambda tx: audit.list_page(tx, n, after=after, since=since, actor=actor)
        )

    async def trim(self, age: float) -> int:
        """Forget some of the events older than `age` seconds; how many."""
        before = clock.now() - int(age * 1_000_000)
        return await self._db.write(
            lambda tx: audit.delete_before(tx, before, _AT_ONCE), actor="operator"
        )
