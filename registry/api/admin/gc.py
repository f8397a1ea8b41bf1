"""Garbage collection."""

import time
from typing import Annotated

from msgspec import Meta

from registry.api.admin.call import Call
from registry.api.admin.fields import Asked, Moment, Shown, write_moment
from registry.api.admin.operation import ADMINS, Operation
from registry.clock import rfc3339
from registry.errors import NotFoundError
from registry.services.collection import Tally
from registry.services.why import Step
from storage.digest import Digest, DigestInvalidError

_PIECE = 5.0
"""Seconds that a piece of work takes, about: somebody waits for the answer."""

DigestText = Annotated[
    str, Meta(extra_json_schema={"pattern": "^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$"})
]


class UnreadableManifest(Shown, frozen=True):
    """A manifest whose bytes are not those of its digest."""

    repository: str
    digest: str


class GcStatus(Shown, frozen=True):
    """How the collector is. `waiting`: what it has yet to look at, by kind; `due`: how much of it
    now; `in_grace`: how much of it later, the first at `next_due_at`. `kept_untagged`: untagged
    manifests that the rules keep. `paused_until`: for the clock has jumped, by so many seconds.
    `walking`: what was there before the upgrade is not all in the queue yet. `open`: it is the
    time of day to work. `unreadable`: the first manifests that cannot be read, in whose
    repositories nothing is collected.
    """

    waiting: dict[str, int]
    due: int
    in_grace: int
    next_due_at: Moment | None
    kept_untagged: int
    looked_at: Moment | None
    paused_until: Moment | None
    jump: float
    walking: bool
    open: bool
    unreadable: list[UnreadableManifest]


class Freed(Shown, frozen=True):
    """What a repository lost: manifests, and blobs, which others may still have, of so many
    bytes.
    """

    repository: str
    manifests: int
    blobs: int
    bytes: int


class GcRun(Shown, frozen=True):
    """What went, or would go. `seen`: how much was looked at; `longest_lock`: seconds for which
    anything was locked, at the most; `more`: there is more to do.
    """

    seen: int
    manifests: int
    blobs: int
    bytes: int
    repositories: list[Freed]
    longest_lock: float
    more: bool


class PathStep(Shown, frozen=True):
    """A tag, or an index, subject or manifest that refers to what comes next; or why what comes
    next stays without: `hold`, whose reason is the name, `rule`, `grace`, `unreadable`, `unqueued`,
    `nothing`.
    """

    kind: str
    repository: str
    name: str
    until: Moment | None


class UploadSession(Shown, frozen=True):
    """An upload session that has the very bytes."""

    id: str
    repository: str
    principal: str


class Removal(Shown, frozen=True):
    """A key whose bytes are to be removed. `held`: not while a backup is made."""

    store: str
    key: str
    not_before: Moment
    held: bool


class GcExplanation(Shown, frozen=True):
    """Every path to something, each from what keeps all of it. `more`: there are others."""

    digest: str
    paths: list[list[PathStep]]
    more: bool
    sessions: list[UploadSession]
    removals: list[Removal]


class NothingMore(Asked, frozen=True):
    """Nothing more is asked."""


class RunGc(Asked, frozen=True):
    """A piece of work, or with `dry_run` what all of it would be."""

    dry_run: bool = False


class ExplainDigest(Asked, frozen=True):
    """A blob or a manifest."""

    digest: DigestText


async def get_gc_status(call: Call, asked: NothingMore) -> GcStatus:
    """Say how the collector is."""
    del asked
    status = await call.registry.collector.get_status()
    return GcStatus(
        waiting=status.waiting,
        due=status.due,
        in_grace=status.in_grace,
        next_due_at=write_moment(status.next_due_at),
        kept_untagged=status.kept_untagged,
        looked_at=write_moment(status.looked_at),
        paused_until=write_moment(status.paused_until),
        jump=status.jump,
        walking=status.walking,
        open=status.open,
        unreadable=[
            UnreadableManifest(str(name), str(digest)) for name, digest in status.unreadable
        ],
    )


async def run_gc(call: Call, asked: RunGc) -> GcRun:
    """Collect a part of what is due, whatever the time of day, and remove its bytes; to be asked
    again while there is more.
    """
    if asked.dry_run:
        return _show(await call.registry.collector.plan(), more=False)
    tally, until = Tally(), time.monotonic() + _PIECE
    more = await call.registry.collector.collect(tally, lambda: time.monotonic() < until)
    swept = await call.registry.doomed.sweep()
    return _show(tally, more=more or swept > 0)


async def explain_digest(call: Call, asked: ExplainDigest) -> GcExplanation:
    """Say why a blob or a manifest is kept."""
    try:
        digest = Digest.parse(asked.digest)
    except DigestInvalidError as error:
        raise NotFoundError("there is neither a blob nor a manifest of this digest") from error
    found = await call.registry.why.explain(digest)
    return GcExplanation(
        digest=str(found.digest),
        paths=[[_show_step(step) for step in path] for path in found.paths],
        more=found.more,
        sessions=[UploadSession(s.id, s.repository, s.principal) for s in found.sessions],
        removals=[Removal(r.store, r.key, rfc3339(r.not_before), r.held) for r in found.removals],
    )


def _show(tally: Tally, *, more: bool) -> GcRun:
    repositories = [
        Freed(name, freed.manifests, freed.blobs, freed.bytes)
        for name, freed in sorted(tally.repositories.items())
    ]
    return GcRun(
        seen=tally.seen,
        manifests=tally.manifests,
        blobs=tally.blobs,
        bytes=tally.bytes,
        repositories=repositories,
        longest_lock=round(tally.held, 4),
        more=more,
    )


def _show_step(step: Step) -> PathStep:
    return PathStep(step.kind, step.repository, step.name, write_moment(step.until))


OPERATIONS = (
    Operation("GET", "/gc", get_gc_status, ADMINS),
    Operation("POST", "/gc/run", run_gc, ADMINS),
    Operation("GET", "/gc/why/{digest}", explain_digest, ADMINS, (NotFoundError,)),
)
