"""Plans: what the retention rules drop and keep in a repository."""

import time

from msgspec import Struct
from msgspec.structs import replace

from registry.auth.policy.patterns import RepositoryPattern
from registry.metadata.content import repositories
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.retention import rules as stored_rules
from registry.metadata.retention import usage_of_tags
from registry.metadata.retention.rules import RetentionRuleRow
from registry.metadata.retention.usage_of_tags import TagUse, UntaggedManifest
from registry.oci.names import RepositoryName, list_patterns
from registry.services.content.removal import find_protected_manifests
from registry.services.gc.clock_guard import ClockGuard
from registry.services.gc.reclaimable import measure
from registry.services.protection.protection import find_kept_tags
from registry.services.retention.plan import (
    Decision,
    Item,
    RetentionRule,
    decide_tags,
    decide_untagged,
)
from registry.services.retention.rules import find_active, read_rule
from registry.services.retention.targets import list_targets

MAX_SECONDS = 5.0
"""Seconds after which a page of plans ends."""

MAX_ITEMS = 1000
"""Number of tags and manifests after which a page of plans ends."""

_SECOND = 1_000_000


class Plan(Struct, frozen=True):
    """The tags that the rules drop and keep in a repository, and the state behind the plan.

    The plan is valid while the rules are unchanged and no other client has deleted a tag after the
    change number `head`. Nothing is dropped before `paused_until` (microseconds), because the clock
    has jumped or the rules have changed.
    """

    repository: RepositoryRow
    rules: list[RetentionRuleRow]
    head: int
    tags: list[Decision[TagUse]]
    manifests: list[Decision[UntaggedManifest]]
    paused_until: int | None

    @property
    def not_enabled(self) -> list[str]:
        """Patterns whose rules would drop something but are not enabled."""
        return [row.pattern for row in self.rules if read_rule(row).drops and not row.enabled]

    @property
    def drops(self) -> list[Decision[TagUse] | Decision[UntaggedManifest]]:
        tags = [each for each in self.tags if each.is_dropped]
        return [*tags, *(each for each in self.manifests if each.is_dropped)]


class Planner:
    """Plans by the rules that are stored."""

    def __init__(self, database: Database, *, grace: float) -> None:
        """Create the planner.

        `grace` is the number of seconds for which a manifest is not dropped after a push, tag or
        pull, and for which nothing is dropped after a clock jump.
        """
        self._db = database
        self.grace_us = int(grace * _SECOND)
        self.clock_guard = ClockGuard(database, grace)

    async def list_names(
        self, pattern: RepositoryPattern, last: str, *, enabled: bool = True
    ) -> list[str]:
        """Return a batch of repositories that match the pattern and a rule.

        The batch starts after the name `last`, in byte order. It is empty at the end. With
        `enabled`, only enabled rules count.
        """
        return await self._db.read(
            lambda tx: list_targets(tx, pattern, last, enabled=enabled), timeout_s=LONG_TIMEOUT_S
        )

    async def list_plans(
        self, pattern: RepositoryPattern, n: int, last: str
    ) -> tuple[list[Plan], str | None]:
        """Return plans of at most `n` matching repositories after the name `last`.

        The second value is the name to continue after, or None. The plans include sizes and treat
        all rules as enabled. There may be fewer than `n` plans if they are long or take long.
        """
        plans: list[Plan] = []
        until = time.monotonic() + MAX_SECONDS
        while names := await self.list_names(pattern, last, enabled=False):
            for name in names:
                plan = await self.plan(RepositoryName(name), measured=True)
                plans += [plan] if plan else []
                lines = sum(len(each.tags) + len(each.manifests) for each in plans)
                if len(plans) == n or lines >= MAX_ITEMS or time.monotonic() > until:
                    return plans, name
            last = names[-1]
        return plans, None

    async def plan(
        self, name: RepositoryName, now: int | None = None, *, measured: bool = False
    ) -> Plan | None:
        """Return the plan for the repository, or None if it does not exist.

        `now` is in microseconds; the default is the database's clock. With `measured`, the plan is
        for display: it includes the bytes that are freed, and the drops of rules that are disabled
        or waiting.
        """
        return await self._db.read(
            lambda tx: self._plan(tx, name, now, measured), timeout_s=LONG_TIMEOUT_S
        )

    def _plan(
        self, tx: Transaction, name: RepositoryName, now: int | None, measured: bool
    ) -> Plan | None:
        # Read the head first, so that every later change is detected when the plan is applied.
        head = usage_of_tags.read_head(tx)
        now = usage_of_tags.read_now(tx) if now is None else now
        repository = repositories.find(tx, name)
        if repository is None:
            return None
        rows = stored_rules.list_of(tx, list_patterns(str(name)))
        waits_until = max((row.waits_until or 0 for row in rows), default=0)
        if measured:
            rules = [read_rule(row) for row in rows]
        elif waits_until > now:
            rules = [read_rule(row).keep_only() for row in rows]
        else:
            rules = [find_active(row) for row in rows]
        uses = usage_of_tags.list_tags(tx, repository) if rows else []
        protected = find_kept_tags(tx, repository, uses)
        decided = decide_tags(rules, uses, protected, now)
        untagged = []
        if any(rule.drop_untagged is not None for rule in rules):
            untagged = usage_of_tags.list_untagged(tx, repository)
        plan = Plan(
            repository,
            rows,
            head,
            decided,
            self._decide_untagged(tx, repository, rules, untagged, now),
            _find_latest(
                self.clock_guard.find_pause(tx), waits_until if waits_until > now else None
            ),
        )
        return _measure(tx, plan) if measured else plan

    def _decide_untagged(
        self,
        tx: Transaction,
        repository: RepositoryRow,
        rules: list[RetentionRule],
        untagged: list[UntaggedManifest],
        now: int,
    ) -> list[Decision[UntaggedManifest]]:
        protected = find_protected_manifests(tx, repository, [each.digest for each in untagged])
        return decide_untagged(rules, untagged, protected, now=now, grace=self.grace_us)


def _find_latest(*moments: int | None) -> int | None:
    return max((moment for moment in moments if moment is not None), default=None)


def _measure(tx: Transaction, plan: Plan) -> Plan:
    """Return the plan with the bytes that it frees."""
    staying = {each.item.digest for each in plan.tags if not each.is_dropped}
    sizes = measure(tx, plan.repository, [each.item.digest for each in plan.drops], staying)
    freed = iter(sizes)

    def fill(decisions: list[Decision[Item]]) -> list[Decision[Item]]:
        return [replace(each, bytes=next(freed)) if each.is_dropped else each for each in decisions]

    return replace(plan, tags=fill(plan.tags), manifests=fill(plan.manifests))
