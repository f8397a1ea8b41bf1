"""`moorage mirror sync`: copies of many images at once, and their schedules."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Any

from registry.cli.kit import client, confirmation, output, progress
from registry.cli.kit.parsing import Parser
from registry.cli.kit.times import write_moment
from registry.errors import InputInvalidError
from registry.units import format_size

if TYPE_CHECKING:
    from registry.app import Runtime
    from registry.operations.mirrors.syncs import ScheduleInfo, SyncInfo

LOOK_EVERY_S = 0.5

_OPEN = {"waiting", "running", "cancelling"}


def declare(mirrors: Parser) -> None:
    """Declare the commands."""
    command = mirrors.add_verb(
        "sync",
        sync,
        "Copy images of the upstream of a mirror, now or by a schedule",
        "moorage mirror sync docker.io --repo library/alpine --tags 'newest:3' latest",
        "moorage mirror sync team --repo 'apps/**' --every 6h",
        url=True,
    )
    command.explain(
        "Only what is missing is copied. An interrupted sync continues when the command is "
        "repeated. With --url, or if a server uses the data directory, its background job copies."
    )
    command.add_argument("name", metavar="NAME", help="name of the mirror")
    command.add_argument(
        "--repo",
        metavar="PATTERN",
        nargs="+",
        action="extend",
        help="repositories at the upstream, such as library/alpine or 'apps/**' (default: all that "
        "it lists)",
    )
    command.add_argument(
        "--tags",
        metavar="SELECTOR",
        nargs="+",
        action="extend",
        help="tags: a pattern (1.*), a range of versions ('>=1.20 <2', '^1.4', '~3.19') or "
        "newest:N, also of either (newest:3:^1) (default: all)",
    )
    command.add_argument(
        "--platform",
        metavar="PLATFORM",
        nargs="+",
        action="extend",
        help="platforms of images for several, such as linux/amd64 (default: those of the mirror, "
        "or all)",
    )
    command.add_argument(
        "--referrers", action="store_true", help="copy signatures and other referrers as well"
    )
    command.add_argument(
        "--prune",
        action="store_true",
        help="delete tags that a sync has set and the upstream has deleted",
    )
    command.add_argument(
        "--every", metavar="DURATION", help="add a schedule, such as 6h, instead of copying now"
    )
    command.add_argument("--dry-run", action="store_true", help="only show the plan")
    confirmation.add_option(command)
    command = mirrors.add_verb(
        "syncs",
        list_all,
        "List the schedules and the syncs of a mirror",
        "moorage mirror syncs docker.io",
        "moorage mirror syncs docker.io 12",
        url=True,
    )
    command.add_argument("name", metavar="NAME", help="name of the mirror")
    command.add_argument("run", metavar="RUN", nargs="?", help="show the report of this sync")
    command = mirrors.add_verb(
        "cancel",
        cancel,
        "Cancel a sync of a mirror",
        "moorage mirror cancel docker.io 12",
        url=True,
    )
    command.add_argument("name", metavar="NAME", help="name of the mirror")
    command.add_argument("run", metavar="RUN", help="number of the sync, as listed")
    command = mirrors.add_verb(
        "unschedule",
        unschedule,
        "Remove a schedule of a mirror",
        "moorage mirror unschedule docker.io 2",
        url=True,
    )
    command.add_argument("name", metavar="NAME", help="name of the mirror")
    command.add_argument("schedule", metavar="SCHEDULE", help="number of the schedule, as listed")


def _read_options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "repositories": args.repo or [],
        "tags": args.tags or [],
        "platforms": args.platform or [],
        "referrers": args.referrers,
        "prune": args.prune,
    }


def sync(args: argparse.Namespace) -> int:
    _require_confirmable(args)
    if args.every is not None and not args.dry_run:
        return _add_schedule(args)

    async def work(operations: client.OperationClient) -> SyncInfo | None:
        options = _read_options(args)
        if args.prune and not args.yes and not args.dry_run:
            plan = await _run(operations, args, options, dry_run=True)
            removals = _confirm(plan)
            options["removals"] = removals
        return await _run(operations, args, options, dry_run=args.dry_run)

    found = client.run(args, work, with_stores=True, job=_help)
    if found is None:
        return 0
    if args.json:
        output.write_json(found)
    else:
        _write_report(found)
    return 0 if found.state == "succeeded" else 1


def _require_confirmable(args: argparse.Namespace) -> None:
    """Raise InputInvalidError if tags would be deleted without a person who confirms it."""
    if args.prune and not args.yes and not args.dry_run and not sys.stdin.isatty():
        raise InputInvalidError(
            "--prune deletes tags: look at the plan with --dry-run, and confirm with --yes"
        )


def _confirm(plan: SyncInfo) -> list[str]:
    """Ask whether to delete the tags that a plan deletes, and return them."""
    removals = [f"{each.repository}:{each.tag}" for each in plan.changes if each.action == "remove"]
    if removals:
        confirmation.require(
            "The upstream has deleted these tags, and they are deleted here:\n  "
            + "\n  ".join(map(output.readable, removals))
            + "\n"
        )
    return removals


async def _help(opened: Runtime) -> None:
    """Carry out syncs, as the background job of a server does, which may do so as well."""
    from registry.jobs.runner import Job, Runner

    worker = opened.registry.sync_worker
    job = Job("mirror-sync", LOOK_EVERY_S, worker.is_due, worker.run)
    runner = Runner(opened.leases, [])
    while True:
        await runner.run(job)
        await asyncio.sleep(LOOK_EVERY_S)


async def _run(
    operations: client.OperationClient,
    args: argparse.Namespace,
    options: dict[str, Any],
    *,
    dry_run: bool,
) -> SyncInfo:
    """Start a sync and follow it to its end. It is cancelled with the command."""
    from registry.operations.mirrors.syncs import cancel_sync, get_sync, start_sync

    run = await operations.send(start_sync, name=args.name, dry_run=dry_run, **options)
    number = str(run.id)

    def read_progress() -> progress.Progress:
        return _measure(run)

    try:
        with progress.show(read_progress):
            while run.state in _OPEN:
                await asyncio.sleep(LOOK_EVERY_S)
                run = await operations.send(get_sync, name=args.name, run=number)
    except asyncio.CancelledError:
        await operations.send(cancel_sync, name=args.name, run=number)
        raise
    return run


def _measure(run: SyncInfo) -> progress.Progress:
    now = run.progress
    if run.state == "waiting":
        return progress.Progress(0, 0, "waiting for a server that runs background jobs")
    if not now.is_planned:
        return progress.Progress(
            0, 0, f"planning: {now.tags} tags in {now.repositories} repositories"
        )
    text = f"{now.done} of {now.planned} tags, {format_size(now.copied_bytes)}"
    return progress.Progress(now.copied_bytes, now.bytes, text)


def _write_report(run: SyncInfo) -> None:
    rows = [
        (
            each.action,
            f"{each.repository}:{each.tag}",
            format_size(each.bytes),
            each.digest,
            each.problem or "",
        )
        for each in run.changes
    ]
    if rows:
        output.write_table(("ACTION", "TAG", "BYTES", "DIGEST", "PROBLEM"), rows)
    if run.more:
        output.write(f"and {output.count(run.more, 'more change')}")
    for note in run.notes:
        output.write_note(note)
    output.write(_summarize(run))


def _summarize(run: SyncInfo) -> str:
    now = run.progress
    if run.dry_run:
        text = (
            f"{output.count(now.planned, 'tag')} would be copied ({format_size(now.bytes)}), "
            f"{now.unchanged} are up to date"
        )
        removed = now.planned_removals
    else:
        text = (
            f"{output.count(now.done, 'tag')} copied ({format_size(now.copied_bytes)}), "
            f"{now.unchanged} up to date"
        )
        removed = now.removed
    if run.options.prune:
        text += f", {removed} to delete" if run.dry_run else f", {removed} deleted"
    if now.failed:
        text += f", {now.failed} failed"
    return f"Sync {run.id} of {run.mirror} {run.state}: {text}."


def _add_schedule(args: argparse.Namespace) -> int:
    from registry.operations.mirrors.syncs import create_schedule

    async def work(operations: client.OperationClient) -> ScheduleInfo:
        if args.prune and not args.yes:
            _confirm(await _run(operations, args, _read_options(args), dry_run=True))
            confirmation.require("Later syncs delete what the upstream deletes, without asking.")
        return await operations.send(
            create_schedule, name=args.name, every=args.every, **_read_options(args)
        )

    needs_plan = args.prune and not args.yes
    added = client.run(args, work, with_stores=needs_plan, job=_help if needs_plan else None)
    said = f"Schedule {added.id}: {added.mirror} is synchronized every {added.every}."
    output.show(added, said, as_json=args.json)
    return 0


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.mirrors.syncs import get_sync, list_schedules, list_syncs

    if args.run is not None:
        run = client.call(args, get_sync, name=args.name, run=args.run)
        if args.json:
            output.write_json(run)
        else:
            _write_report(run)
        return 0

    async def work(
        operations: client.OperationClient,
    ) -> tuple[list[ScheduleInfo], list[SyncInfo]]:
        schedules = await operations.send(list_schedules, name=args.name)
        return schedules.items, await client.list_pages(operations, list_syncs, name=args.name)

    schedules, runs = client.run(args, work)
    if args.json:
        output.write_json({"schedules": schedules, "syncs": runs})
        return 0
    write_schedules(schedules)
    output.write_table(
        ("SYNC", "SCHEDULE", "STARTED", "STATE", "TAGS", "COPIED", "FAILED"),
        [
            (
                each.id,
                each.schedule or "-",
                write_moment(each.started_at),
                f"{each.state} (plan)" if each.dry_run else each.state,
                each.progress.tags,
                format_size(each.progress.copied_bytes),
                each.progress.failed,
            )
            for each in runs
        ],
    )
    return 0


def write_schedules(schedules: list[ScheduleInfo]) -> None:
    """Print the schedules of a mirror, if it has any."""
    if not schedules:
        return
    output.write_table(
        ("SCHEDULE", "EVERY", "REPOSITORIES", "TAGS", "NEXT", "LAST", "RESULT"),
        [
            (
                each.id,
                each.every,
                " ".join(each.options.repositories) or "all",
                " ".join(each.options.tags) or "all",
                write_moment(each.next_at),
                write_moment(each.last.ended_at) if each.last else "-",
                each.last.state if each.last else "-",
            )
            for each in schedules
        ],
    )


def cancel(args: argparse.Namespace) -> int:
    from registry.operations.mirrors.syncs import cancel_sync

    run = client.call(args, cancel_sync, name=args.name, run=args.run)
    output.show(run, f"Sync {run.id} of {run.mirror} is {run.state}.", as_json=args.json)
    return 0


def unschedule(args: argparse.Namespace) -> int:
    from registry.operations.mirrors.syncs import delete_schedule

    client.call(args, delete_schedule, name=args.name, schedule=args.schedule)
    said = f"Removed schedule {args.schedule} of {args.name}."
    output.show({"removed": args.schedule}, said, as_json=args.json)
    return 0
