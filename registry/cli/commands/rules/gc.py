"""`moorage gc`: garbage collection."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry.cli.kit import client, output, progress
from registry.cli.kit.client import OperationClient
from registry.cli.kit.parsing import EXAMPLE_DIGEST, Parser
from registry.cli.kit.times import write_moment
from registry.units import format_size

if TYPE_CHECKING:
    from registry.operations.gc import GcRun, GcStatus, PathStep

FAILED = 1

_LEFT = ("in_grace", "next_due_at", "kept_untagged", "unreadable", "paused_until")

_BEGINNINGS = {
    "untagged_rule": "untagged manifests are kept in {repository}",
    "grace_period": "in its grace period until {until}",
    "unreadable_manifest": "a manifest of {repository} cannot be read",
    "not_queued": "nothing keeps it, but it is not queued",
    "none": "nothing keeps it, it will be deleted",
}


def declare(gc: Parser) -> None:
    """Declare the commands."""
    command = gc.add_verb(
        "run",
        run,
        "Collect everything that is due now",
        "moorage gc run --dry-run",
        url=True,
    )
    command.explain("The server does the same continuously, in small batches.")
    command.add_argument(
        "--dry-run", action="store_true", help="report what would be deleted, and delete nothing"
    )
    gc.add_verb("status", status, "Show the state of the collector", "moorage gc status", url=True)
    command = gc.add_verb(
        "why",
        why,
        "Show what keeps a blob or a manifest",
        f"moorage gc why {EXAMPLE_DIGEST}",
        url=True,
    )
    command.add_argument("digest", metavar="DIGEST", help="digest of the blob or manifest")


def run(args: argparse.Namespace) -> int:
    from registry.operations.gc import get_gc_status, run_gc

    async def work(operations: OperationClient) -> tuple[GcRun, GcStatus]:
        before = await operations.send(get_gc_status)
        done = await operations.send(run_gc, dry_run=args.dry_run)
        with progress.show(lambda: _find_progress(done, before.due)):
            while done.has_more:
                done = _add(done, await operations.send(run_gc, dry_run=args.dry_run))
        return done, await operations.send(get_gc_status)

    done, status = client.run(args, work, with_stores=True)
    if args.json:
        result = {name: value for name, value in output.to_json(done).items() if name != "has_more"}
        left = {name: getattr(status, name) for name in _LEFT}
        output.write_json({**result, "left": left})
    else:
        _tell(done, "Would collect" if args.dry_run else "Collected")
        for line in _explain_left(status):
            output.write(line)
        if done.longest_lock_seconds:
            output.write_note(
                f"No lock was held for more than {done.longest_lock_seconds * 1000:.0f} ms."
            )
    if status.paused_until is not None:
        output.write_error(_explain_pause(status))
        return FAILED
    return 0


def _explain_left(status: GcStatus) -> Iterator[str]:
    """Yield a line for each reason why content is not collected."""
    if status.in_grace:
        yield (
            f"{status.in_grace} candidates are in their grace period (gc.grace_period); the "
            f"next is due at {write_moment(status.next_due_at)}."
        )
    if status.kept_untagged:
        yield (
            f"{status.kept_untagged} untagged manifests and the content that they name are kept by "
            "gc.untagged or a rule. To delete one: moorage image delete REPOSITORY@DIGEST"
        )
    if status.unreadable:
        repositories = {each.repository for each in status.unreadable}
        yield (
            f"Nothing is collected in {', '.join(sorted(repositories))}, because manifests there "
            "cannot be read. To list them: moorage gc status"
        )


def _add(done: GcRun, more: GcRun) -> GcRun:
    """Return the sum of two results of a collection."""
    from registry.operations.gc import CollectedContent, GcRun

    found = {each.repository: each for each in done.repositories}
    for each in more.repositories:
        before = found.get(each.repository, CollectedContent(each.repository, 0, 0, 0))
        found[each.repository] = CollectedContent(
            each.repository,
            before.manifests + each.manifests,
            before.blobs + each.blobs,
            before.bytes + each.bytes,
        )
    return GcRun(
        examined=done.examined + more.examined,
        manifests=done.manifests + more.manifests,
        blobs=done.blobs + more.blobs,
        bytes=done.bytes + more.bytes,
        repositories=[found[name] for name in sorted(found)],
        longest_lock_seconds=max(done.longest_lock_seconds, more.longest_lock_seconds),
        has_more=more.has_more,
    )


def _find_progress(done: GcRun, due: int) -> progress.Progress:
    text = f"{done.examined} of {due} examined, {format_size(done.bytes)} freed"
    return progress.Progress(done.examined, due, text)


def _tell(done: GcRun, verb: str) -> None:
    rows = [
        (each.repository, each.manifests, each.blobs, format_size(each.bytes))
        for each in done.repositories
    ]
    if rows:
        output.write_table(("REPOSITORY", "MANIFESTS", "BLOBS", "SIZE"), rows)
    output.write(
        f"{verb} {done.manifests} manifests and {done.blobs} blobs of {format_size(done.bytes)}."
    )


def status(args: argparse.Namespace) -> int:
    from registry.operations.gc import get_gc_status

    found = client.call(args, get_gc_status)
    if args.json:
        output.write_json(found)
        return 0
    waiting, checked = found.queued, found.last_clock_check_at
    rows = [
        ("due now", found.due),
        ("queued", ", ".join(f"{number} {kind}s" for kind, number in waiting.items())),
        ("in grace period", found.in_grace),
        ("next due", write_moment(found.next_due_at)),
        ("kept untagged", found.kept_untagged),
        ("last clock check", write_moment(checked) if checked else "never"),
        ("in time window", "yes" if found.in_window else "no"),
        ("paused until", found.paused_until or "-"),
        *(("cannot be read", f"{each.repository}@{each.digest}") for each in found.unreadable),
    ]
    output.write_table(("FIELD", "VALUE"), rows)
    if found.paused_until is not None:
        output.write_note(_explain_pause(found))
    if found.unreadable:
        output.write_note(
            "A manifest that cannot be read might name any content, so nothing of its repository "
            "is collected until it is pushed again or deleted."
        )
    return 0


def _explain_pause(status: GcStatus) -> str:
    return (
        f"the clock of the database has jumped by {status.clock_jump_seconds:.0f} s, or nothing "
        f"checked it for that time: nothing is collected until {status.paused_until}"
    )


def why(args: argparse.Namespace) -> int:
    from registry.operations.gc import explain_digest

    found = client.call(args, explain_digest, digest=args.digest)
    if args.json:
        output.write_json(found)
        return 0
    for path in found.paths:
        output.write(" > ".join(map(_write_step, path)))
    if found.has_more:
        output.write_note("There are more paths.")
    for session in found.upload_sessions:
        output.write(
            f"upload session {session.id} of {session.principal} in "
            f"{session.repository} has these bytes"
        )
    for removal in found.pending_deletions:
        held = ", after a backup that is in progress" if removal.blocked_by_backup else ""
        output.write(
            f"{removal.key} in {removal.store} is deleted after {removal.not_before}{held}"
        )
    return 0


def _write_step(step: PathStep) -> str:
    if step.kind == "tag":
        return f"{step.repository}:{step.name}"
    if step.kind == "hold":
        return f"hold in {step.repository}: {step.name}"
    if step.kind in _BEGINNINGS:
        place = f"{step.repository}@" if step.repository else ""
        reason = _BEGINNINGS[step.kind].format(repository=step.repository, until=step.until)
        return f"{place}{step.name} ({reason})"
    return f"{step.kind} {step.repository}@{step.name}"
