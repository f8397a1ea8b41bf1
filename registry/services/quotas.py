"""Quotas: how many bytes of blobs and manifests the repositories of a pattern may have."""

import logging
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from registry.auth.books import Actor, Event, note
from registry.auth.patterns import RepositoryPattern
from registry.auth.policies import Policies
from registry.auth.principals import OPERATOR
from registry.errors import NotFoundError, PatternInvalidError, QuotaExceededError
from registry.metadata import counting, quotas, tally_checks
from registry.metadata.areas import EACH
from registry.metadata.call import LONG
from registry.metadata.database import Database
from registry.metadata.quotas import QuotaRow, Standing
from registry.metadata.transaction import Transaction
from registry.oci.names import RepositoryName
from registry.units import round_size

__all__ = ["NOBODY", "QuotaReport", "Quotas", "Room", "Standing", "require_room"]

logger = logging.getLogger(__name__)

NOBODY = ""
"""Comes before every upload session."""

STEPS = 100
"""Steps of counting in one piece of the job's work."""


def parse_pattern(text: str) -> str:
    """Read what a quota is of: a pattern as grants have them, or `*/**`; PatternInvalidError."""
    if text == EACH:
        return text
    try:
        return str(RepositoryPattern.parse(text))
    except PatternInvalidError as error:
        raise PatternInvalidError(
            f"{error}; a quota knows */** as well (every namespace by itself)"
        ) from error


def _exceeded(standing: Standing) -> QuotaExceededError:
    quota = standing.quota
    coming = f" and {round_size(standing.reserved)} are coming" if standing.reserved else ""
    return QuotaExceededError(
        f"this does not fit into the quota of {standing.pattern}, {round_size(quota.bytes)}: "
        f"{round_size(standing.used)} are used{coming}. Delete something, or ask for more",
        {
            "quota": standing.pattern,
            "limit": quota.bytes,
            "used": standing.used,
            "reserved": standing.reserved,
        },
    )


def require_room(tx: Transaction, name: RepositoryName, *, before: str | None = None) -> None:
    """Raise QuotaExceededError if more is there by now than the repository's quotas allow.

    `before`: an upload session that is settled here. What those hold that come after it does not
    count: of those that have outrun each other, one must win. NOBODY: what no session holds.
    """
    for standing in quotas.list_standings(tx, name, before=before):
        if standing.left < 0:
            raise _exceeded(standing)


@dataclass(frozen=True, slots=True)
class Room:
    """What is left in the fullest quota of a repository."""

    standing: Standing

    def require(self, size: int) -> None:
        """Raise QuotaExceededError unless so many bytes fit. None fit always."""
        if size > max(self.standing.left, 0):
            raise _exceeded(self.standing)

    async def bound(self, body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """The body, ended with QuotaExceededError as soon as it does not fit."""
        received = 0
        async for piece in body:
            received += len(piece)
            self.require(received)
            yield piece


@dataclass(frozen=True, slots=True)
class QuotaReport:
    """How full a quota is; of one for each namespace, where it is the fullest. `is_counted`:
    whether all that is there is in these numbers.
    """

    standing: Standing
    is_counted: bool


def _report(tx: Transaction, row: QuotaRow) -> QuotaReport:
    return QuotaReport(quotas.find_fullest(tx, row), quotas.is_counted(tx, row))


class Quotas:
    """Setting quotas, and looking at how full they are."""

    def __init__(self, database: Database, policies: Policies) -> None:
        self._db = database
        self._policies = policies

    async def list_page(self, n: int, last: str = "") -> list[QuotaReport]:
        """How full at most `n` quotas are, after the pattern `last`."""

        def work(tx: Transaction) -> list[QuotaReport]:
            return [_report(tx, row) for row in quotas.list_page(tx, n, last)]

        return await self._db.read(work)

    async def set(self, pattern: str, size: int, actor: Actor) -> QuotaReport:
        """Allow so many bytes. A job counts what is there; until then the quota knows a part.

        PatternInvalidError.
        """
        wanted = parse_pattern(pattern)

        def work(tx: Transaction) -> QuotaReport:
            row = quotas.put(tx, wanted, size)
            note(tx, actor, Event.QUOTA_SET, wanted, bytes=size)
            return _report(tx, row)

        return await self._db.write(work, actor=actor.name)

    async def remove(self, pattern: str, actor: Actor) -> None:
        """Allow everything again; NotFoundError, PatternInvalidError."""
        wanted = parse_pattern(pattern)

        def work(tx: Transaction) -> None:
            if not quotas.delete(tx, wanted):
                raise NotFoundError(f"there is no quota of {wanted}")
            note(tx, actor, Event.QUOTA_REMOVE, wanted)

        await self._db.write(work, actor=actor.name)

    async def hold_for(self, name: RepositoryName, since: float | None = None) -> bool:
        """Whether any holds for the repository, as of now or of a moment after `since`: known from
        memory, as `Policies.get` has it.
        """
        return (await self._policies.get(since)).is_limited(name)

    async def find_room(self, name: RepositoryName) -> Room | None:
        """What is left for the repository; None: no quota holds for it."""
        standings = await self.list_standings(name)
        return Room(min(standings, key=lambda s: s.left)) if standings else None

    async def list_standings(self, name: RepositoryName) -> list[Standing]:
        """How full the quotas are that hold for the repository."""
        return await self._db.read(lambda tx: quotas.list_standings(tx, name))

    async def is_any_due(self) -> bool:
        """Whether `count` would do anything."""
        return await self._db.read(
            lambda tx: counting.is_any_due(tx) or tally_checks.is_any_due(tx)
        )

    async def count(self) -> int:
        """Count what was there before a quota, sweep what was counted for one that is gone, and
        correct what does not agree with what is stored; how many steps of a bounded number were
        done.
        """
        done = 0
        for step in (counting.count_next, counting.count_manifests_next, counting.sweep_next):
            while done < STEPS and await self._db.write(step, actor=OPERATOR.name):
                done += 1
        while done < STEPS and await self._check_next():
            done += 1
        return done

    async def _check_next(self) -> bool:
        """Compare the bytes of a quota with what is stored; False: none is due."""
        found = await self._db.read(tally_checks.compare_next, patience=LONG)
        if found is None:
            return False
        corrected = await self._db.write(
            lambda tx: tally_checks.correct(tx, found), actor=OPERATOR.name
        )
        if corrected and found.difference:
            pattern = f"{found.namespace}/**" if found.namespace else found.pattern
            logger.warning(
                "the usage of the quota of %s was off by %d bytes, and is corrected",
                pattern,
                found.difference,
            )
        return True
