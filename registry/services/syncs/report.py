"""The progress and the report of a sync, as they are stored in the row of its run."""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
from msgspec import Struct

from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from storage.digest import Digest

MOST_CHANGES = 2000
"""Number of changes that a report lists. The counts cover all of them."""

MOST_NOTES = 100


class SyncAction(StrEnum):
    """What a sync does with a tag."""

    ADD = "add"
    """The target does not have the tag."""
    MOVE = "move"
    """The tag points to another manifest at the target."""
    COMPLETE = "complete"
    """The target has the tag, but not all content of its image."""
    REMOVE = "remove"
    """The source has deleted the tag."""


class TagChange(Struct, frozen=True, kw_only=True):
    """A tag that a sync changes. `bytes` are those of blobs that are copied for it.

    `problem` says why the tag could not be changed.
    """

    repository: str
    tag: str
    action: SyncAction
    digest: str
    before: str | None = None
    bytes: int = 0
    problem: str | None = None


class SyncCounts(Struct, kw_only=True):
    """Numbers of a sync. The `planned` numbers are those of the plan, the others those of results.

    `bytes` are those of blobs, of which `copied_bytes` have arrived.
    """

    repositories: int = 0
    tags: int = 0
    unchanged: int = 0
    planned: int = 0
    planned_removals: int = 0
    bytes: int = 0
    done: int = 0
    removed: int = 0
    failed: int = 0
    blobs: int = 0
    copied_bytes: int = 0
    is_planned: bool = False


class SyncReport(Struct, frozen=True, kw_only=True):
    """The changes of a sync, of which `more` are not listed, and notes of other problems."""

    changes: tuple[TagChange, ...] = ()
    more: int = 0
    notes: tuple[str, ...] = ()


@dataclass
class SyncLog:
    """The numbers and the changes of a running sync."""

    counts: SyncCounts = field(default_factory=SyncCounts)
    _changes: dict[tuple[RepositoryName, Tag], TagChange] = field(default_factory=dict)
    _more: int = 0
    _notes: list[str] = field(default_factory=list)
    version: int = 0
    """A number that increases when the changes or the notes do."""

    def plan(
        self,
        repository: RepositoryName,
        tag: Tag,
        action: SyncAction,
        digest: Digest,
        *,
        before: Digest | None = None,
        size: int = 0,
    ) -> None:
        """Add a change to the plan."""
        if action is SyncAction.REMOVE:
            self.counts.planned_removals += 1
        else:
            self.counts.planned += 1
        self.counts.bytes += size
        self._put(
            repository,
            tag,
            TagChange(
                repository=str(repository),
                tag=str(tag),
                action=action,
                digest=str(digest),
                before=str(before) if before is not None else None,
                bytes=size,
            ),
        )

    def fail(self, repository: RepositoryName, tag: Tag, problem: str) -> None:
        """Record that a planned change was not made."""
        self.counts.failed += 1
        planned = self._changes.get((repository, tag))
        if planned is not None:
            self._put(repository, tag, msgspec.structs.replace(planned, problem=problem))

    def note(self, problem: str) -> None:
        """Record a problem that concerns no planned change."""
        self.version += 1
        if len(self._notes) < MOST_NOTES:
            self._notes.append(problem)

    def make_report(self) -> SyncReport:
        return SyncReport(
            changes=tuple(self._changes.values()), more=self._more, notes=tuple(self._notes)
        )

    def _put(self, repository: RepositoryName, tag: Tag, change: TagChange) -> None:
        self.version += 1
        key = (repository, tag)
        if key in self._changes or len(self._changes) < MOST_CHANGES:
            self._changes[key] = change
        else:
            self._more += 1
