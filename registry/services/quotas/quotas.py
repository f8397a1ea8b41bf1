"""Quotas: limits for the bytes of blobs and manifests in the repositories of a pattern."""

import logging

from msgspec import Struct

from registry.auth.audit_log import Actor, Event, record
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.policy_cache import PolicyCache
from registry.auth.policy.principals import OPERATOR
from registry.errors import NotFoundError, PatternInvalidError, QuotaExceededError
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.maintenance import usage_checks, usage_recount
from registry.metadata.pattern_filter import EACH
from registry.metadata.quotas import quotas
from registry.metadata.quotas.quotas import QuotaRow, Standing
from registry.oci.names import RepositoryName
from registry.units import round_size

__all__ = ["NOBODY", "QuotaReport", "Quotas", "Room", "Standing", "require_room"]

logger = logging.getLogger(__name__)

NOBODY = ""
"""Sorts before the id of every upload session."""

STEPS = 100
"""Maximum number of counting steps per job run."""


def parse_pattern(text: str) -> str:
    """Return the pattern of a quota: a grant pattern, or `*/**`. Raises PatternInvalidError."""
    if text == EACH:
        return text
    try:
        return str(RepositoryPattern.parse(text))
    except PatternInvalidError as error:
        raise PatternInvalidError(
            f"{error}; a quota also accepts */** (each namespace separately)"
        ) from error


def _exceeded(standing: Standing) -> QuotaExceededError:
    quota = standing.quota
    coming = (
        f" and {round_size(standing.reserved)} are reserved by uploads" if standing.reserved else ""
    )
    return QuotaExceededError(
        f"quota exceeded: {standing.pattern} uses {round_size(standing.used)} of "
        f"{round_size(quota.bytes)}{coming}; delete content or ask an administrator to "
        "raise the quota",
        {
            "quota": standing.pattern,
            "limit": quota.bytes,
            "used": standing.used,
            "reserved": standing.reserved,
        },
    )


def require_room(tx: Transaction, name: RepositoryName, *, before: str | None = None) -> None:
    """Raise QuotaExceededError if the usage exceeds a quota of the repository.

    `before` is the id of the upload session that is being completed. Reservations of sessions with
    a higher id do not count, so that one of several racing sessions succeeds. With NOBODY, no
    reservations count.
    """
    for standing in quotas.list_standings(tx, name, before=before):
        if standing.left < 0:
            raise _exceeded(standing)


class Room(Struct, frozen=True):
    """The space left in the fullest quota of a repository."""

    standing: Standing

    @property
    def left(self) -> int:
        """The number of bytes that fit."""
        return max(self.standing.left, 0)

    def require(self, size: int) -> None:
        """Raise QuotaExceededError unless `size` bytes fit. Zero bytes always fit."""
        if size > self.left:
            raise _exceeded(self.standing)


class QuotaReport(Struct, frozen=True):
    """The usage of a quota.

    A quota for each namespace reports its fullest namespace. `is_counted` is False while the usage
    is incomplete.
    """

    standing: Standing
    is_counted: bool


def _report(tx: Transaction, row: QuotaRow) -> QuotaReport:
    return QuotaReport(quotas.find_fullest(tx, row), quotas.is_counted(tx, row))


class Quotas:
    """Management and reports of quotas."""

    def __init__(self, database: Database, policies: PolicyCache) -> None:
        self._db = database
        self._policies = policies

    async def list_page(self, n: int, last: str = "") -> list[QuotaReport]:
        """Return the usage of at most `n` quotas, after the pattern `last`."""

        def work(tx: Transaction) -> list[QuotaReport]:
            return [_report(tx, row) for row in quotas.list_page(tx, n, last)]

        return await self._db.read(work)

    async def set(self, pattern: str, size: int, actor: Actor) -> QuotaReport:
        """Set a quota in bytes. Raises PatternInvalidError.

        A job counts existing content. Until it is done, the usage is incomplete.
        """
        wanted = parse_pattern(pattern)

        def work(tx: Transaction) -> QuotaReport:
            row = quotas.put(tx, wanted, size)
            record(tx, actor, Event.QUOTA_SET, wanted, bytes=size)
            return _report(tx, row)

        return await self._db.write(work, actor=actor.name)

    async def remove(self, pattern: str, actor: Actor) -> None:
        """Remove a quota. Raises NotFoundError, PatternInvalidError."""
        wanted = parse_pattern(pattern)

        def work(tx: Transaction) -> None:
            if not quotas.delete(tx, wanted):
                raise NotFoundError(f"no quota for {wanted}")
            record(tx, actor, Event.QUOTA_DELETE, wanted)

        await self._db.write(work, actor=actor.name)

    async def hold_for(self, name: RepositoryName, since: float | None = None) -> bool:
        """Return whether a quota applies to the repository, now or as of some time after `since`.

        The answer comes from memory, as with `PolicyCache.get`.
        """
        return (await self._policies.get(since)).is_limited(name)

    async def find_room(self, name: RepositoryName) -> Room | None:
        """Return the space left for the repository, or None if no quota applies."""
        standings = await self.list_standings(name)
        return Room(min(standings, key=lambda s: s.left)) if standings else None

    async def list_standings(self, name: RepositoryName) -> list[Standing]:
        """Return the usage of all quotas that apply to the repository."""
        return await self._db.read(lambda tx: quotas.list_standings(tx, name))

    async def is_any_due(self) -> bool:
        """Return whether `count` has work to do."""
        return await self._db.read(
            lambda tx: usage_recount.is_any_due(tx) or usage_checks.is_any_due(tx)
        )

    async def count(self) -> int:
        """Do a bounded number of counting steps. Return how many were done.

        Counts content that is older than its quota, removes counters of deleted quotas, and
        corrects counters that differ from what is stored.
        """
        done = 0
        for step in (
            usage_recount.count_next,
            usage_recount.count_manifests_next,
            usage_recount.sweep_next,
        ):
            while done < STEPS and await self._db.write(step, actor=OPERATOR.name):
                done += 1
        while done < STEPS and await self._check_next():
            done += 1
        return done

    async def _check_next(self) -> bool:
        """Compare the usage of one quota with what is stored. Return False if none is due."""
        found = await self._db.read(usage_checks.compare_next, timeout_s=LONG_TIMEOUT_S)
        if found is None:
            return False
        corrected = await self._db.write(
            lambda tx: usage_checks.correct(tx, found), actor=OPERATOR.name
        )
        if corrected and found.difference:
            pattern = f"{found.namespace}/**" if found.namespace else found.pattern
            logger.warning(
                "corrected the usage of the quota of %s: it was off by %d bytes",
                pattern,
                found.difference,
            )
        return True
