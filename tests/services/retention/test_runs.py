"""Records of what retention runs dropped, and restoring a whole run."""

import pytest

from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import ConflictError, NotFoundError
from registry.metadata.engine.database import Database
from registry.oci.names import RepositoryName
from registry.services.content.history import History
from registry.services.retention.retention import Retention
from registry.services.retention.rules import RetentionRules
from registry.services.retention.runs import RetentionRuns
from tests.metadata.rows import digest_of, image
from tests.services.retention.histories import list_manifests, list_tags, push, set_rule
from tests.support.accounts import OPERATOR
from tests.support.clock import MovableClock

pytestmark = pytest.mark.anyio

ALL = RepositoryPattern.parse("**")
OTHER = RepositoryName("other/app")


@pytest.fixture
def movable_clock(monkeypatch: pytest.MonkeyPatch) -> MovableClock:
    return MovableClock(monkeypatch)


async def work(retention: Retention) -> None:
    while await retention.work():
        pass


async def test_a_whole_run_is_taken_back(movable_clock: MovableClock, database: Database) -> None:
    retention = Retention(database, interval=3600, grace=100 * 3600)
    runs = RetentionRuns(database, History(database))
    rules = RetentionRules(database, interval=3600)
    await push(database, image("1"), "v1", "v2")
    await push(database, image("2"), "w1", name=OTHER)
    await push(database, image("lone"), days_ago=9)
    await set_rule(database, drop="v*", drop_untagged="7d")
    await work(retention)
    movable_clock.forward(3600)
    await set_rule(database, drop="w*")
    await work(retention)
    assert await list_tags(database) == []
    second, first = await runs.list_page(ALL, 9)
    assert [(run.tags, run.manifests) for run in (first, second)] == [(2, 1), (1, 0)]
    assert first.started_at <= first.ended_at < second.started_at
    assert await runs.list_page(ALL, 1) == [second]
    assert await runs.list_page(ALL, 9, second.id) == [first]
    assert [run.id for run in await runs.list_page(RepositoryPattern.parse("other/*"), 9)] == [
        second.id
    ]
    drops = await runs.list_drops(first.id, ALL, 9, 0)
    assert [(drop.row.tag, drop.row.digest, drop.state.value) for drop in drops] == [
        ("v1", digest_of(image("1")), "present"),
        ("v2", digest_of(image("1")), "present"),
        (None, digest_of(image("lone")), "restorable"),
    ]
    # The rules would drop restored tags again, so retention must be disabled first.
    with pytest.raises(ConflictError, match=r"retention disable '\*\*'"):
        await runs.restore(first.id, ALL, OPERATOR)
    await rules.disable(ALL, OPERATOR)
    # One of the dropped tags has been set again.
    await push(database, image("new"), "v2")
    restored = await runs.restore(first.id, ALL, OPERATOR)
    assert (restored.tags, restored.manifests, restored.next) == (1, 1, None)
    assert [(row.tag, why) for row, why in restored.skipped] == [("v2", "the tag exists again")]
    assert await list_tags(database) == ["v1", "v2"]
    assert digest_of(image("lone")) in await list_manifests(database)
    # Restoring again does nothing, and the other run is unchanged.
    again = await runs.restore(first.id, ALL, OPERATOR)
    assert (again.tags, again.manifests) == (0, 0)
    assert (await runs.restore(second.id, ALL, OPERATOR)).tags == 1
    with pytest.raises(NotFoundError, match="no retention run"):
        await runs.restore(first.id + 1000, ALL, OPERATOR)


async def test_a_run_is_taken_back_piece_by_piece(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.services.retention.runs.AT_ONCE", 2)
    monkeypatch.setattr("registry.services.retention.runs._PAGE", 2)
    runs = RetentionRuns(database, History(database))
    tags = [f"v{number}" for number in range(5)]
    await push(database, image("1"), *tags)
    await set_rule(database, drop="v*")
    await work(Retention(database, interval=3600, grace=3600))
    await RetentionRules(database, interval=3600).disable(ALL, OPERATOR)
    [run] = await runs.list_page(ALL, 9)
    pieces: list[int] = []
    first: int | None = 0
    while first is not None:
        piece = await runs.restore(run.id, ALL, OPERATOR, first)
        pieces.append(piece.tags)
        first = piece.next
    assert pieces == [2, 2, 1]
    assert await list_tags(database) == tags
