"""A direct view of database and disk, bypassing the registry, and its invariants."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from registry.metadata.engine.transaction import Change
from tests.scenarios.model.contents import Repository
from tests.scenarios.model.model import Model

Contents = dict[str, dict[str, Any]]
Rows = Callable[[str], list[tuple[Any, ...]]]


@dataclass(frozen=True)
class SessionRow:
    """An upload session as stored in the database."""

    name: str
    generation: str | None
    offset: int
    key: str | None
    active: int


class ChangeRow(NamedTuple):
    """A change as stored in the feed."""

    number: int
    actor: str
    kind: str
    repository: str
    generation: str
    digest: str | None
    tag: str | None
    old_digest: str | None


@dataclass
class Look:
    """All rows and files, with digests and names as strings."""

    contents: Contents
    generations: dict[str, str]
    blobs: dict[str, tuple[int, str, str]]
    """Size, key and state by digest."""
    sessions: dict[str, SessionRow]
    pending_deletions: set[str]
    objects: dict[str, int]
    """Size of each file of the store by key."""
    staged: dict[str, int]
    queue: set[tuple[str, str, str]]
    """Candidates of the collector: repository (empty for blobs), kind and digest."""
    head: int
    changes: list[ChangeRow]
    """Rows of the feed after the requested number."""


def look(engine: sa.Engine, storage: Path, after: int = 0) -> Look:
    """Read all rows and files, and the changes after the number `after`."""
    with engine.connect() as connection:

        def rows(statement: str) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]

        repositories = rows("SELECT id, name, generation FROM repositories")
        found = Look(
            contents=_contents({id_: name for id_, name, _ in repositories}, rows),
            generations={name: generation for _, name, generation in repositories},
            blobs={row[0]: row[1:] for row in rows("SELECT digest, size, key, state FROM blobs")},
            sessions={
                row[0]: SessionRow(*row[1:])
                for row in rows(
                    'SELECT id, repository, repository_generation, "offset", key, active_at '
                    "FROM uploads"
                )
            },
            pending_deletions={key for (key,) in rows("SELECT key FROM pending_deletions")},
            objects=_list_objects(storage),
            staged={e.name: e.stat().st_size for e in os.scandir(storage / "staging")},
            queue={
                (name or "", kind, digest)
                for name, kind, digest in rows(
                    "SELECT name, kind, digest FROM gc_queue "
                    "LEFT JOIN repositories ON repositories.id = repository_id"
                )
            },
            head=rows("SELECT revision FROM change_feed_revision")[0][0],
            changes=[
                ChangeRow(*row)
                for row in rows(
                    "SELECT revision, actor, kind, repository, generation, digest, tag, old_digest "
                    f"FROM change_feed WHERE revision > {after} ORDER BY revision"
                )
            ],
        )
        connection.rollback()
        return found


def _contents(name_of: dict[int, str], rows: Rows) -> Contents:
    """Return the content of each repository, in the form of `contents_of`."""
    raw_of: dict[int, bytes] = dict(rows("SELECT manifest_id, bytes FROM manifest_bytes"))
    contents: Contents = {
        name: {"tags": {}, "manifests": {}, "links": set(), "ties": {}} for name in name_of.values()
    }
    ties_of: dict[int, set[tuple[str, str, str | None]]] = {}
    for id_, repository, digest, media_type, subject, artifact_type in rows(
        "SELECT id, repository_id, digest, media_type, subject, artifact_type FROM manifests"
    ):
        held = contents[name_of[repository]]
        held["manifests"][digest] = media_type, bytes(raw_of.pop(id_)), subject, artifact_type
        held["ties"][digest] = ties_of[id_] = set()
    assert raw_of == {}, "bytes of manifests that are not there"
    for id_, kind, digest, blob, child in rows(
        "SELECT manifest_id, kind, digest, blob_digest, child_digest FROM manifest_edges"
    ):
        assert {blob, child} in ({None}, {None, digest})
        ties_of[id_].add((kind, digest, "blob" if blob else "child" if child else None))
    for repository, digest in rows("SELECT repository_id, digest FROM repository_blobs"):
        contents[name_of[repository]]["links"].add(digest)
    for repository, tag, digest in rows("SELECT repository_id, name, digest FROM tags"):
        contents[name_of[repository]]["tags"][tag] = digest
    return contents


def _list_objects(storage: Path) -> dict[str, int]:
    return {
        f"blobs/{algorithm.name}/{first.name}/{entry.name}": entry.stat().st_size
        for algorithm in os.scandir(storage / "blobs")
        for first in os.scandir(algorithm)
        for entry in os.scandir(first)
    }


def contents_of(model: Model) -> Contents:
    """Return the content of the repositories according to the model."""
    return {
        name: {
            "tags": repository.tags,
            "manifests": {
                digest: (m.media_type, m.document.raw, m.named.subject, m.named.artifact_type)
                for digest, m in repository.manifests.items()
            },
            "links": repository.links,
            "ties": {digest: _ties(repository, digest) for digest in repository.manifests},
        }
        for name, repository in model.repositories.items()
    }


def _ties(repository: Repository, digest: str) -> set[tuple[str, str, str | None]]:
    stored = repository.manifests[digest]
    ties: set[tuple[str, str, str | None]] = {
        (kind, part, "blob" if part in repository.links else None)
        for kind, part in stored.named.parts
    }
    return ties | {("entry", entry, tie) for entry, tie in stored.ties.items()}


@dataclass
class Replay:
    """The state that a reader derives from the change feed, from its first number on."""

    number: int = 0
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)

    def play(self, changes: list[ChangeRow]) -> None:
        """Apply changes. Fail on a gap, and on a change that contradicts the state before."""
        for change in changes:
            self.number += 1
            assert change.number == self.number, "a gap in the feed"
            assert change.actor in {"anonymous", "operator", "gc"}
            self._apply(change)

    def _apply(self, change: ChangeRow) -> None:
        name, digest = change.repository, change.digest
        kind = Change(change.kind)
        if kind is Change.REPOSITORY_CREATE:
            assert name not in self.repositories, change
            here = {"generation": change.generation, "tags": {}}
            self.repositories[name] = here | {"manifests": set(), "links": set()}
            return
        held = self.repositories[name]
        assert held["generation"] == change.generation, change
        match kind:
            case Change.REPOSITORY_DELETE:
                del self.repositories[name]
            case Change.MANIFEST_PUT:
                held["manifests"].add(digest)
            case Change.MANIFEST_DELETE:
                held["manifests"].remove(digest)
            case Change.BLOB_LINK:
                assert digest not in held["links"], change
                held["links"].add(digest)
            case Change.BLOB_UNLINK:
                held["links"].remove(digest)
            case Change.TAG_SET | Change.TAG_DELETE:
                assert held["tags"].pop(change.tag, None) == change.old_digest, change
                if kind is Change.TAG_SET:
                    held["tags"][change.tag] = digest

    def check(self, found: Look) -> None:
        """Fail unless the state derived from the feed equals the tables."""
        assert self.number == found.head
        told = {
            name: (held["generation"], held["tags"], held["manifests"], held["links"])
            for name, held in self.repositories.items()
        }
        assert told == {
            name: (
                found.generations[name],
                held["tags"],
                held["manifests"].keys(),
                held["links"],
            )
            for name, held in found.contents.items()
        }, "the feed tells otherwise"


@dataclass
class Inspector:
    """Compares the actual state with the model after each step."""

    verified: set[str] = field(default_factory=set)
    """Keys whose bytes were verified. The bytes of a key never change."""
    lives: dict[int, str] = field(default_factory=dict)
    """Generation of a repository by its `generation` in the model."""

    def check(self, model: Model, found: Look, storage: Path) -> None:
        wanted = contents_of(model)
        assert found.contents.keys() == wanted.keys(), "catalogue"
        for name, held in found.contents.items():
            for part, value in held.items():
                assert value == wanted[name][part], f"{part} of {name}"
            assert held["manifests"] or held["links"], f"{name} is empty"
        self._check_generations(model, found)
        self._check_blobs(model, found, storage)
        self._check_closures(model, found)
        self._check_owners(found)
        self._check_queue(model, found)
        self._check_sessions(model, found)

    def _check_generations(self, model: Model, found: Look) -> None:
        for name, repository in model.repositories.items():
            generation = found.generations[name]
            assert self.lives.setdefault(repository.generation, generation) == generation
        assert len(set(self.lives.values())) == len(self.lives), "a generation came twice"

    def _check_blobs(self, model: Model, found: Look, storage: Path) -> None:
        for digest, (size, key, state) in found.blobs.items():
            if digest in model.lost:
                assert state == "missing", digest
                continue
            assert state == "live", digest
            assert found.objects.get(key) == size, f"bytes of {digest}"
            if key not in self.verified:
                algorithm, _, expected = digest.partition(":")
                data = (storage / key).read_bytes()
                assert hashlib.new(algorithm, data).hexdigest() == expected
                self.verified.add(key)

    def _check_closures(self, model: Model, found: Look) -> None:
        """Check I1: every tag has its manifest, and every manifest has all named content."""
        for name, repository in model.repositories.items():
            held = found.contents[name]
            assert set(held["tags"].values()) <= held["manifests"].keys()
            assert held["links"] <= found.blobs.keys()
            for digest, stored in repository.manifests.items():
                entries = stored.ties.keys()
                assert stored.named.required - entries <= held["links"], f"{digest} in {name}"
                for entry, tie in stored.ties.items():
                    # None: the index of a fallback tag was detached from the entry.
                    here = {"child": held["manifests"], "blob": held["links"], None: entries}[tie]
                    assert entry in here, f"{digest} in {name}"

    def _check_owners(self, found: Look) -> None:
        """Check that every object is referenced by a row."""
        owners = found.pending_deletions | {key for _, key, _ in found.blobs.values()}
        owners |= {session.key for session in found.sessions.values() if session.key}
        assert found.objects.keys() <= owners, "an object without an owner"

    def _check_queue(self, model: Model, found: Look) -> None:
        """Check that all unreferenced content is queued: the collector reads only the queue."""
        linked: set[str] = set()
        for name, held in model.repositories.items():
            linked |= held.links
            for digest in held.links:
                queued = (name, "link", digest) in found.queue
                assert queued or held.users_of(digest), f"{digest} in {name} is lost"
            for digest, stored in held.manifests.items():
                referred = (
                    held.tags_of(digest)
                    or held.parents_of(digest)
                    or stored.named.subject in held.manifests
                )
                queued = (name, "manifest", digest) in found.queue
                assert queued or referred, f"{digest} in {name} is lost"
        for digest in found.blobs.keys() - linked:
            assert ("", "blob", digest) in found.queue, f"{digest} is lost"

    def _check_sessions(self, model: Model, found: Look) -> None:
        assert found.sessions.keys() == model.sessions.keys(), "sessions"
        assert found.staged.keys() <= model.sessions.keys(), "staged bytes without a session"
        for upload, row in found.sessions.items():
            session = model.sessions[upload]
            assert row.name == session.name
            assert row.offset == len(session.data)
            known = self.lives.get(session.generation) if session.generation else None
            assert row.generation == known
            if not session.published:
                assert found.staged.get(upload, 0) >= row.offset
