"""New rules drop nothing until their effect could be reviewed."""

from typing import Any

import pytest

from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import ConflictError, NotFoundError
from registry.metadata.engine.database import Database
from registry.metadata.retention import rules as stored_rules
from registry.services.retention.retention import Retention
from registry.services.retention.rules import RetentionRule, RetentionRules
from tests.metadata.rows import image
from tests.services.retention.histories import list_tags, push, set_rule
from tests.support.accounts import OPERATOR
from tests.support.clock import MovableClock

pytestmark = pytest.mark.anyio

INTERVAL = 3600.0


@pytest.fixture
def movable_clock(monkeypatch: pytest.MonkeyPatch) -> MovableClock:
    return MovableClock(monkeypatch)


@pytest.fixture
async def retention(movable_clock: MovableClock, database: Database) -> Retention:
    del movable_clock  # The clock must be patched before anything reads it.
    await push(database, image("1"), "v1", "v2")
    # A clock that jumps by more than the grace period is a different case.
    return Retention(database, interval=INTERVAL, grace=100 * INTERVAL)


@pytest.fixture
def rules(database: Database) -> RetentionRules:
    return RetentionRules(database, interval=INTERVAL)


def rule(pattern: str, *, keep: str = "", drop: str = "") -> RetentionRule:
    return RetentionRule(
        RepositoryPattern.parse(pattern), keep=tuple(keep.split()), drop=tuple(drop.split())
    )


async def work(retention: Retention) -> list[str]:
    """Run the job until it is done, and return the remaining tags."""
    while await retention.work():
        pass
    return await list_tags(retention._db)


async def test_a_new_rule_drops_nothing_until_it_is_enabled(
    retention: Retention, rules: RetentionRules, movable_clock: MovableClock
) -> None:
    state = await rules.set(rule("team/**", drop="v1"), OPERATOR)
    assert not state.enabled
    assert not await retention.is_due()
    assert await work(retention) == ["v1", "v2"]
    movable_clock.forward(10 * INTERVAL)
    assert await work(retention) == ["v1", "v2"]
    [plan], _ = await retention.planner.list_plans(RepositoryPattern.parse("**"), 10, "")
    assert [each.item.name for each in plan.tags if each.is_dropped] == ["v1"]
    assert plan.not_enabled == ["team/**"]
    await rules.enable(RepositoryPattern.parse("team/**"), OPERATOR)
    assert await work(retention) == ["v2"]


async def test_a_rule_that_is_not_enabled_keeps_all_the_same(
    database: Database, retention: Retention, rules: RetentionRules
) -> None:
    await rules.set(rule("team/app", keep="v1", drop="v2"), OPERATOR)
    await set_rule(database, drop="*")
    assert await work(retention) == ["v1"]


async def test_changed_rules_wait_for_one_interval(
    retention: Retention, rules: RetentionRules, movable_clock: MovableClock
) -> None:
    await rules.set(rule("team/**", drop="x"), OPERATOR, now=True)
    assert await work(retention) == ["v1", "v2"]
    changed = await rules.set(rule("team/**", drop="v1"), OPERATOR)
    assert changed.enabled
    assert changed.waits_until is not None
    movable_clock.forward(INTERVAL - 60)
    assert await work(retention) == ["v1", "v2"]
    # Setting the same rules again changes nothing and starts no new wait.
    assert await rules.set(rule("team/**", drop="v1"), OPERATOR) == changed
    movable_clock.forward(INTERVAL)
    assert await work(retention) == ["v2"]


@pytest.mark.parametrize("how", ["removed", "changed"])
async def test_what_another_rule_kept_waits_too(
    how: str,
    movable_clock: MovableClock,
    database: Database,
    retention: Retention,
    rules: RetentionRules,
) -> None:
    await rules.set(rule("team/app", keep="v1"), OPERATOR)
    await set_rule(database, drop="*")
    assert await work(retention) == ["v1"]
    if how == "removed":
        await rules.remove(RepositoryPattern.parse("team/app"), OPERATOR)
        assert [str(each.rule.pattern) for each in await rules.list_page(9)] == ["**"]
    else:
        await rules.set(rule("team/app", keep="x"), OPERATOR)
    movable_clock.forward(INTERVAL - 60)
    assert await work(retention) == ["v1"]
    movable_clock.forward(INTERVAL)
    assert await work(retention) == []
    left = await database.read(stored_rules.list_all)
    assert [row.pattern for row in left] == (["**"] if how == "removed" else ["**", "team/app"])


async def test_disabled_rules_and_such_as_are_not_there(
    retention: Retention, rules: RetentionRules
) -> None:
    pattern = RepositoryPattern.parse("team/**")
    await rules.set(rule("team/**", drop="v1"), OPERATOR, now=True)
    await rules.disable(pattern, OPERATOR)
    assert await work(retention) == ["v1", "v2"]
    with pytest.raises(ConflictError, match="are not enabled"):
        await retention.run(pattern, "", OPERATOR)
    await rules.set(rule("team/**", keep="v1"), OPERATOR)
    with pytest.raises(ConflictError, match="drop nothing"):
        await rules.enable(pattern, OPERATOR)
    await rules.remove(pattern, OPERATOR)
    for change in (rules.enable, rules.disable, rules.remove):
        call: Any = change(pattern, OPERATOR)
        with pytest.raises(NotFoundError):
            await call
