"""Tests of query plans on both databases: no list reads more than its page."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.content import (
    blobs,
    key_ownership,
    manifest_graph,
    manifests,
    pull_times,
    referrers,
    repositories,
    tags,
    uploads,
)
from registry.metadata.content.blobs import BlobState
from registry.metadata.content.repositories import NameRange
from registry.metadata.engine import connections, sqlite
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.transaction import CandidateKind, Transaction
from registry.metadata.gc import pending_deletions, queue, unreadable_manifests
from registry.metadata.gc.queue import Candidate
from registry.metadata.maintenance import scrub, usage_checks, usage_recount
from registry.metadata.mirrors import (
    mirror_images,
    mirror_tag_history,
    mirror_tags,
    mirror_usage,
    mirrors,
    sync_runs,
    sync_schedules,
    synced_tags,
)
from registry.metadata.protection import holds, immutable_tags, removed_manifests
from registry.metadata.quotas import quotas, usage_counters
from registry.metadata.retention import rules, usage_of_tags
from registry.metadata.revisions import change_feed
from registry.oci.references import Tag
from storage.keys import MULTIPART_PREFIX
from tests.metadata.rows import NAME, STORE, add, digest, digest_of, find, image

ANY = digest("any")
TAG = Tag("latest")
UNTAGGED = image("loose")

KINDS = tuple(CandidateKind)

SINGLE_ROW = ("change_feed_revision", "gc_state")
"""Tables that have one row."""


def compare_next(tx: Transaction) -> None:
    check = usage_checks.compare_next(tx)
    assert check is not None
    assert usage_checks.correct(tx, check)


SEARCHES: dict[str, Callable[[Transaction], object]] = {
    "blobs.find": lambda tx: blobs.find(tx, NAME, ANY),
    "blobs.list_repositories": lambda tx: blobs.list_repositories(tx, ANY, 9),
    "blobs.count_not_live": blobs.count_not_live,
    "blobs.list_stores": blobs.list_stores,
    "blobs.unlink": lambda tx: blobs.unlink(tx, find(tx), {ANY: None}),
    "blobs.list_manifests_using": lambda tx: blobs.list_manifests_using(tx, find(tx), ANY),
    "blobs.list_linked": lambda tx: blobs.list_linked(tx, find(tx), [ANY]),
    "blobs.find_promised": lambda tx: blobs.find_promised(tx, NAME, ANY),
    "blobs.touch": lambda tx: blobs.touch(tx, NAME, ANY, 1.0),
    "queue.evaluate": lambda tx: [queue.evaluate(tx, k, 1, [ANY], 9) for k in KINDS],
    "queue.lock": lambda tx: queue.lock(tx, CandidateKind.LINK, 1, [ANY]),
    "queue.list_last": lambda tx: queue.list_last(tx, 1, [ANY], 9),
    "queue.delete": lambda tx: queue.delete(tx, CandidateKind.LINK, 1, [ANY]),
    "queue.needs_repair": lambda tx: queue.needs_repair(tx, "rules", 9),
    "unreadable_manifests.is_any": lambda tx: unreadable_manifests.is_any(tx, 1),
    "tags.list_tags_reaching": lambda tx: tags.list_tags_reaching(tx, NAME, ANY, 9),
    "change_feed.find_digest_before": lambda tx: change_feed.find_digest_before(tx, NAME, TAG, ANY),
    "change_feed.find_end": lambda tx: change_feed.find_end(tx, "generation"),
    "holds.list_of": lambda tx: holds.list_of(tx, 1, [ANY]),
    "holds.find_any": lambda tx: holds.find_any(tx, 1),
    "immutable_tags.list_of": lambda tx: immutable_tags.list_of(tx, ["**", "team/**"]),
    "removed_manifests.find": lambda tx: removed_manifests.find(tx, NAME, ANY),
    "removed_manifests.list_digests": lambda tx: removed_manifests.list_digests(tx, NAME, [ANY]),
    "manifests.delete": lambda tx: manifests.delete(tx, find(tx), add(tx, image("3"))),
    "manifests.is_promised": lambda tx: manifests.is_promised(tx, NAME, ANY),
    "manifests.find by tag": lambda tx: manifests.find(tx, NAME, TAG),
    "manifests.find by digest": lambda tx: manifests.find(tx, NAME, ANY),
    "manifests.list_parents": lambda tx: manifests.list_parents(tx, find(tx), ANY),
    "manifests.list_present": lambda tx: manifests.list_present(tx, find(tx), [ANY]),
    "manifests.put": lambda tx: add(tx, image("2")),
    "scrub.find_birth": scrub.find_birth,
    "tags.list_tags_needing_blob": lambda tx: tags.list_tags_needing_blob(tx, ANY, 9),
    "pull_times.put": lambda tx: pull_times.put(tx, [(1, "latest", 0)]),
    "usage_of_tags.find_tag": lambda tx: usage_of_tags.find_tag(tx, find(tx), "latest"),
    "usage_of_tags.find_untagged": lambda tx: usage_of_tags.find_untagged(
        tx, find(tx), digest_of(UNTAGGED)
    ),
    "usage_of_tags.list_untagged": lambda tx: usage_of_tags.list_untagged(tx, find(tx)),
    "usage_of_tags.list_deleted_tags": lambda tx: usage_of_tags.list_deleted_tags(tx, NAME, 9),
    "rules.list_of": lambda tx: rules.list_of(tx, ["**", "team/*"]),
    "referrers.list_by_digest_prefix": lambda tx: referrers.list_by_digest_prefix(
        tx, find(tx), ["sha256:0"]
    ),
    "manifest_graph.list_blobs": lambda tx: manifest_graph.list_blobs(tx, [1]),
    "manifest_graph.iter_shares": lambda tx: list(manifest_graph.iter_shares(tx, find(tx), [ANY])),
    "quotas.list_standings": lambda tx: quotas.list_standings(tx, NAME),
    "quotas.is_counted": lambda tx: quotas.is_counted(tx, quotas.list_of(tx, NAME)[0]),
    "usage_recount.count_manifests_next": usage_recount.count_manifests_next,
    "usage_counters.remove": lambda tx: usage_counters.remove(tx, find(tx).id, {ANY}),
    "mirror_tag_history.observe": lambda tx: mirror_tag_history.observe(tx, NAME, TAG, ANY),
    "mirror_tag_history.list_outdated": lambda tx: mirror_tag_history.list_outdated(
        tx, find(tx), ["1"], ANY
    ),
    "mirror_usage.find": lambda tx: mirror_usage.find(tx, "hub"),
    "mirror_images.find_use": lambda tx: mirror_images.find_use(tx, find(tx), ANY),
    "mirror_images.list_local_tags": lambda tx: mirror_images.list_local_tags(tx, find(tx), ANY),
    "mirror_images.is_filling": lambda tx: mirror_images.is_filling(
        tx, find(tx), [add(tx, image("2"))]
    ),
    "mirror_images.list_own_blobs": lambda tx: mirror_images.list_own_blobs(
        tx, find(tx), [add(tx, image("2"))], "hub/**"
    ),
    "repositories.list_names of those named": lambda tx: repositories.list_names(
        tx, 9, "", [NameRange("a/a", exact=True), NameRange("b", exact=True)]
    ),
    "uploads.list_present": lambda tx: uploads.list_present(tx, ["a"]),
    "repositories.delete": lambda tx: repositories.delete(tx, find(tx)),
    "tags.delete": lambda tx: tags.delete(tx, find(tx), TAG),
    "tags.delete_all_of": lambda tx: tags.delete_all_of(tx, find(tx), ANY),
}


IN_ORDER: dict[str, Callable[[Transaction], object]] = {
    "usage_checks.is_any_due": usage_checks.is_any_due,
    "usage_checks.compare_next": compare_next,
    "blobs.list_after": lambda tx: blobs.list_after(tx, ANY, 9),
    "unreadable_manifests.list_stored": lambda tx: unreadable_manifests.list_stored(
        tx, 1, 9, 1 << 20
    ),
    "blobs.list_by_key": lambda tx: blobs.list_by_key(tx, STORE, "a", "b", 9),
    "blobs.list_in_state": lambda tx: blobs.list_in_state(tx, BlobState.DAMAGED, ANY, 9),
    "queue.list_due": lambda tx: queue.list_due(tx, 9, 9, Candidate(1, 1, CandidateKind.LINK, ANY)),
    "queue.unpark": lambda tx: queue.unpark(tx, "rules", 9),
    "queue.repair_future_times": lambda tx: queue.repair_future_times(tx, 9, 9),
    "change_feed.list_after": lambda tx: change_feed.list_after(tx, 0, 9),
    "change_feed.list_of_tag": lambda tx: change_feed.list_of_tag(tx, NAME, TAG, 9),
    "change_feed.find_of_tag_at": lambda tx: change_feed.find_of_tag_at(tx, NAME, TAG, 9),
    "holds.list_over": lambda tx: holds.list_over(tx, 9),
    "holds.list_page": lambda tx: holds.list_page(tx, 9, 1),
    "repositories.is_claimed": lambda tx: repositories.is_claimed(tx, NAME),
    "mirrors.find": lambda tx: mirrors.find(tx, "hub"),
    "mirror_tags.find": lambda tx: mirror_tags.find(tx, NAME, Tag("1")),
    "sync_runs.find": lambda tx: sync_runs.find(tx, "hub", 1),
    "sync_runs.list_of": lambda tx: sync_runs.list_of(tx, "hub", 9, 9),
    "sync_runs.list_startable": sync_runs.list_startable,
    "sync_runs.is_open": lambda tx: sync_runs.is_open(tx, 1),
    "sync_schedules.is_any_due": sync_schedules.is_any_due,
    "sync_schedules.list_of": lambda tx: sync_schedules.list_of(tx, "hub"),
    "synced_tags.list_of": lambda tx: synced_tags.list_of(tx, NAME),
    "immutable_tags.list_page": lambda tx: immutable_tags.list_page(tx, 9, 1),
    "removed_manifests.list_due": lambda tx: removed_manifests.list_due(tx, 9, 9),
    "pending_deletions.list_due": lambda tx: pending_deletions.list_due(tx, STORE, 9),
    "referrers.list_page": lambda tx: referrers.list_page(
        tx, find(tx), ANY, artifact_type=None, last="", n=9
    ),
    "manifest_graph.iter_nodes": lambda tx: list(manifest_graph.iter_nodes(tx, find(tx))),
    "usage_of_tags.list_tags": lambda tx: usage_of_tags.list_tags(tx, find(tx)),
    "rules.list_page": lambda tx: rules.list_page(tx, 9, ""),
    "repositories.list_names": lambda tx: repositories.list_names(tx, 9, ""),
    "repositories.list_names below some": lambda tx: repositories.list_names(
        tx,
        9,
        "",
        [
            NameRange("a/"),
            NameRange("b/", direct_children_only=True),
            NameRange("", direct_children_only=True),
        ],
    ),
    "tags.list_names": lambda tx: tags.list_names(tx, find(tx), 9, ""),
    "tags.list_names after a tag": lambda tx: tags.list_names(tx, find(tx), 9, "v99999"),
    "repositories.list_names after a name": lambda tx: repositories.list_names(tx, 9, "z/z"),
    "tags.list_of": lambda tx: tags.list_of(tx, find(tx), ANY),
    "uploads.list_idle": lambda tx: uploads.list_idle(tx, [STORE], 0, 9),
}


class Explaining:
    """A transaction over a few rows that can show the plans of its statements."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.tx = Transaction(connection, "ann", 1)
        for pattern in ("**", "team/**", "team/app"):
            quotas.put(self.tx, pattern, 1 << 30)
        add(self.tx, image("1"), "latest")
        add(self.tx, UNTAGGED)
        # As an older version leaves them: not yet compared, and without counted manifests.
        self.tx.execute(sa.update(tables.usage_counters).values(checked_at=-(10**12)))
        self.tx.execute(
            sa.update(tables.usage_counter_repositories).values(manifests_counted_at=None)
        )
        self.prefix = "EXPLAIN QUERY PLAN "
        if connection.dialect.name == "postgresql":
            self.prefix = "EXPLAIN (COSTS OFF) "
            # A sequential scan is faster for so few rows. Show the plan for many.
            for method in ("seqscan", "bitmapscan"):
                connection.execute(sa.text(f"SET LOCAL enable_{method} = off"))

    def plan(self, work: Callable[[Transaction], object]) -> list[str]:
        """Return the plan lines of all statements that `work` executes, and undo its changes."""
        executed: list[tuple[str, Any]] = []

        def note(*args: Any) -> None:
            _connection, _cursor, statement, parameters, _context, many = args
            executed.append((statement, parameters[0] if many else parameters))

        savepoint = self.connection.begin_nested()
        sa.event.listen(self.connection, "before_cursor_execute", note)
        work(self.tx)
        sa.event.remove(self.connection, "before_cursor_execute", note)
        savepoint.rollback()
        assert executed
        return [
            str(row[-1])
            for statement, parameters in executed
            for row in self.connection.exec_driver_sql(self.prefix + statement, parameters)
        ]


@pytest.fixture
def explaining(database_url: str) -> Iterator[Explaining]:
    url = parse_url(database_url)
    if Database.is_embedded(database_url):
        engine = sqlite.open_engine(Path(url.database or ""), writer=True)
    else:
        engine = connections.open_engine(url)
    with engine.begin() as connection:
        yield Explaining(connection)
    engine.dispose()


_STEPS = ("needing", "part", "uses")
"""The parts of statements that have few rows."""


def is_scan(line: str) -> bool:
    """Return whether the plan reads a whole table, except one-row tables and given values."""
    reads_all = line.startswith("SCAN") or "Seq Scan" in line
    has_one = any(table in line for table in SINGLE_ROW)
    no_table = (
        line in {"SCAN CONSTANT ROW", *(f"SCAN {each}" for each in _STEPS)} or "given" in line
    )
    # This index contains only the rows to be counted.
    is_queue = "ix_usage_counter_repositories_uncounted" in line
    return reads_all and not (has_one or no_table or is_queue)


def is_filtered(line: str, below: str) -> bool:
    """Return whether the plan filters the rows of an index scan instead of searching the index."""
    return "Index" in line and "Scan using" in line and below.strip().startswith("Filter")


def is_sort(line: str) -> bool:
    return "TEMP B-TREE" in line or "Sort" in line


def test_everything_is_found_by_an_index(explaining: Explaining) -> None:
    plans = {name: explaining.plan(work) for name, work in (SEARCHES | IN_ORDER).items()}
    assert {name: lines for name, lines in plans.items() if any(map(is_scan, lines))} == {}
    filtered = {
        name: lines
        for name, lines in plans.items()
        if any(is_filtered(line, below) for line, below in pairwise(lines))
    }
    assert filtered == {}


def test_lists_stop_at_the_end_of_the_page(explaining: Explaining) -> None:
    plans = {name: explaining.plan(work) for name, work in IN_ORDER.items()}
    assert {name: lines for name, lines in plans.items() if any(map(is_sort, lines))} == {}


def test_only_sessions_are_searched_for_the_owner_of_a_key(explaining: Explaining) -> None:
    """Sessions are few, and are searched only for keys that no blob has."""
    keys = [f"{MULTIPART_PREFIX}ab/x", "staging/a/1"]
    lines = explaining.plan(lambda tx: key_ownership.list_unowned(tx, STORE, keys))
    assert [line for line in lines if is_scan(line) and "uploads" not in line] == []


def test_the_tags_of_a_manifest_are_read_alone(explaining: Explaining) -> None:
    lines = explaining.plan(lambda tx: tags.list_of(tx, find(tx), digest_of(image("1"))))
    assert any("ix_tags_repository_id_digest_name" in line for line in lines), lines
