"""Plans over repositories that were pushed to for a year."""

from typing import Any

import pytest
import sqlalchemy as sa

from registry.auth.policy.patterns import RepositoryPattern
from registry.metadata import tables
from registry.metadata.engine.database import Database
from registry.oci.names import RepositoryName
from registry.services.retention.condition_fields import NewestBy
from registry.services.retention.retention import Retention
from tests.metadata.rows import NAME, digest_of, events, image, index
from tests.services.retention.histories import (
    BASE,
    DAY,
    EACH,
    MANIFEST,
    NIGHTS,
    list_manifests,
    list_tags,
    make_year,
    night,
    pull,
    push,
    set_rule,
    write,
)
from tests.services.retention.runs.helpers import ALL, going, plan_of, run

pytestmark = pytest.mark.anyio


async def test_a_year_of_nightly_builds(database: Database, retention: Retention) -> None:
    await make_year(database)
    await pull(database, night(7), NIGHTS[7], days_ago=1)  # by its tag
    await pull(database, night(8), days_ago=2)  # by its digest
    await pull(database, night(9), NIGHTS[10], days_ago=1)  # by a tag that pointed to it earlier
    await set_rule(database, keep="nightly-*-01", keep_newest=14, drop_not_pulled="340d")
    plan = await plan_of(retention, measured=True)
    stay = {*NIGHTS[-340:], NIGHTS[7], NIGHTS[8], *(n for n in NIGHTS if n.endswith("-01"))}
    assert going(plan) == [name for name in NIGHTS if name not in stay]
    assert {each.bytes for each in plan.drops} == {EACH + MANIFEST}
    assert await run(retention) == (len(NIGHTS) - len(stay), 0)
    assert await list_tags(database) == sorted(stay)
    assert await run(retention) == (0, 0)
    changes = [row for row in await events(database) if row.kind == "tag.delete"]
    assert {(row.actor, row.repository) for row in changes} == {("retention", NAME)}
    # The manifests have only just become untagged. Then the test makes that older.
    await set_rule(database, drop_untagged="1d")
    assert await run(retention) == (0, 0)
    await write(
        database, lambda tx: tx.execute(sa.update(tables.change_feed).values(at=tx.now - 2 * DAY))
    )
    measured = await plan_of(retention, measured=True)
    assert sum(each.bytes for each in measured.drops) == len(changes) * (EACH + MANIFEST)
    assert await run(retention) == (0, len(changes))
    assert await list_manifests(database) == {night(NIGHTS.index(name)) for name in stay}


async def test_all_of_a_year_frees_what_it_shares_too(
    database: Database, retention: Retention
) -> None:
    await make_year(database)
    await set_rule(database, drop="*")
    plan = await plan_of(retention, measured=True)
    assert [each.bytes for each in plan.drops] == [
        BASE + EACH + MANIFEST,
        *[EACH + MANIFEST] * 364,
    ]


async def test_bytes_are_of_what_is_needed_nowhere_else(
    database: Database, retention: Retention
) -> None:
    one, two, kept = image("1", ["one", "shared"]), image("2", ["two"]), image("3", ["shared"])
    both = index([one, two])
    signature = image(
        "s", ["sig"], subject={"digest": str(digest_of(both)), "size": 1, "mediaType": "x"}
    )
    for manifest, names in ((one, ()), (two, ()), (both, ("a", "b")), (kept, ("kept",))):
        await push(database, manifest, *names)
    await push(database, signature)
    await push(database, two, "other", name=RepositoryName("other"))
    await set_rule(database, "team/*", keep="kept", drop="*")

    def sizes(*manifests: Any) -> int:
        return sum(len(manifest.raw) for manifest in manifests)

    # A layer has 3 bytes and a config 8. Content that another repository shares is not counted.
    freed = sizes(one, two, both, signature) + 3 + 8 + 3 + 8
    plan = await plan_of(retention, measured=True)
    assert going(plan) == ["a", "b"]
    assert [each.bytes for each in plan.drops] == [freed, 0]
    # If one of the tags stays, or an index names the manifests, dropping frees nothing.
    await set_rule(database, "team/*", keep="kept b", drop="*")
    assert [d.bytes for d in (await plan_of(retention, measured=True)).drops] == [0]
    await set_rule(database, "team/*", keep="kept", drop="a b")
    await push(database, index([one], annotations={"x": "y"}), "kept-too")
    plan = await plan_of(retention, measured=True)
    assert sum(d.bytes for d in plan.drops) == sizes(two, both, signature) + 3 + 8


async def test_only_what_rules_speak_of_is_looked_at(
    database: Database, retention: Retention
) -> None:
    names = ["a", "a/b", "a/b/c", "a/d", "a-b", "b", "a/b-c"]
    for name in names:
        await push(database, image(name), "x", name=RepositoryName(name))
    for pattern, found in {
        "a": ["a"],
        "a/*": ["a/b", "a/b-c", "a/d"],
        "a/**": ["a/b", "a/b-c", "a/b/c", "a/d"],
        "*": ["a", "a-b", "b"],
        "**": sorted(names),
        "c/**": [],
    }.items():
        await set_rule(database, pattern, keep_newest=1)
        assert await retention.planner.list_names(ALL, "", enabled=False) == found, pattern
        assert await retention.planner.list_names(ALL, "a/b", enabled=False) == [
            name for name in found if name > "a/b"
        ]
        assert await retention.planner.list_names(
            RepositoryPattern.parse("a/b/*"), "", enabled=False
        ) == [name for name in found if name.startswith("a/b/")]
        await write(database, lambda tx: tx.execute(sa.delete(tables.retention_rules)))
    for pattern in ("a/b", "a/b/*", "b"):
        await set_rule(database, pattern, keep_newest=1)
    assert await retention.planner.list_names(ALL, "", enabled=False) == ["a/b", "a/b/c", "b"]


async def test_rules_of_several_patterns_apply_together(
    database: Database, retention: Retention
) -> None:
    for number, tag in enumerate(["a", "b", "c"]):
        await push(database, image(tag), tag, days_ago=9 - number)
        await push(database, image(tag), tag, name=RepositoryName("other"))
    await set_rule(database, "**", keep="a")
    await set_rule(database, "team/**", keep_newest=1, by=NewestBy.PULL, drop="*")
    assert going(await plan_of(retention)) == ["b"]
    assert going(await plan_of(retention, RepositoryName("other"))) == []
    await pull(database, digest_of(image("b")), "b")
    assert going(await plan_of(retention)) == ["c"]


async def test_signatures_stay_with_what_they_sign(
    database: Database, retention: Retention
) -> None:
    digest = await push(database, image("1"), "app")
    subject = {"digest": str(digest), "size": 1, "mediaType": "x"}
    signature = image("s", subject=subject)
    await push(database, signature)
    await push(database, index([signature]), f"sha256-{digest.hex}")
    names = [f"sha256-{digest.hex}.sig", f"sha256-{'0' * 64}.sig"]
    await push(database, image("2"), *names)
    await set_rule(database, drop="*")
    assert set(going(await plan_of(retention))) == {"app", names[1]}
    assert await run(retention) == (2, 0)
    await set_rule(database, drop="*", drop_untagged="0s")
    await write(database, lambda tx: tx.execute(sa.update(tables.change_feed).values(at=0)))
    await write(database, lambda tx: tx.execute(sa.update(tables.manifests).values(pushed_at=0)))
    # Without the image, nothing retains them any more.
    assert await run(retention) == (2, 1)


async def test_the_form_of_a_tag_keeps_nothing(database: Database, retention: Retention) -> None:
    """`cosign copy` and oc-mirror tag every digest that they copy `sha256-<hex>`."""
    one, two = image("1"), image("2")
    subject = {"digest": str(digest_of(two)), "size": 1, "mediaType": "x"}
    referrer = image("r", subject=subject)
    whole = index([one, two, referrer])
    own = [f"sha256-{digest_of(each).hex}" for each in (one, two, referrer, whole)]
    for each, tag in zip((one, two, referrer, whole), own, strict=True):
        await push(database, each, tag, f"{tag}.copy")
    # An index that lists a referrer of another manifest does not belong to this manifest.
    other = index([referrer], annotations={"a": "b"})
    await push(database, other, "other")
    await set_rule(database, drop="*", keep="other")
    assert set(going(await plan_of(retention))) == {*own, *(f"{tag}.copy" for tag in own)}
    await push(database, other, own[0])
    assert own[0] in going(await plan_of(retention))
    await push(database, other, own[1])
    assert own[1] not in going(await plan_of(retention))
