"""`moorage scrub`: verify the stored blobs against their digests."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from registry import clock
from registry.cli.kit import output, progress
from registry.cli.kit.local import run, with_registry
from registry.cli.kit.parsing import Parser, read_count, read_option
from registry.units import format_size, parse_size

if TYPE_CHECKING:
    from registry.app import Runtime
    from registry.oci.names import RepositoryName
    from registry.services.gc.manifest_scrub import Unreadable
    from registry.services.maintenance.scrub import Damaged, ScrubRow
    from registry.services.services import Services

_LOOK_EVERY = 1.0
"""Interval between two polls of a pass, in seconds."""


def declare(scrub: Parser) -> None:
    """Declare the commands."""
    command = scrub.add_verb(
        "run",
        work,
        "Read all manifests and blobs, and report which are damaged",
        "moorage scrub run --limit-rate 50MiB",
    )
    command.explain(
        "An interrupted scrub is resumed. If a server is already scrubbing, the command follows "
        "its progress."
    )
    command.add_argument(
        "--limit-rate",
        metavar="SIZE",
        help="maximum bytes per second, 0B for no limit (default scrub.limit_rate)",
    )
    command.add_argument("--restart", action="store_true", help="start over")
    show = scrub.add_verb(
        "status",
        status,
        "Show damaged blobs and the tags that they break",
        "moorage scrub status",
    )
    for each in (command, show):
        each.add_argument(
            "--limit",
            metavar="N",
            default="1000",
            help="maximum number of blobs, of manifests, and of tags for each (default 1000)",
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """Result of a scrub: the last pass, and the damaged blobs and unreadable manifests to show.

    The counts cover all of them; the lists are limited.
    """

    row: ScrubRow | None
    count: int
    damaged: list[Damaged]
    manifest_count: int
    manifests: list[Unreadable]

    @property
    def is_clean(self) -> bool:
        return not (self.count or self.manifest_count or (self.row and self.row.unreadable))


def work(args: argparse.Namespace) -> int:
    from registry.jobs.runner import Runner
    from registry.jobs.schedule import find_healing

    rate = read_option(args.limit_rate, "--limit-rate", parse_size) if args.limit_rate else None
    limit = read_count(args.limit, "--limit")

    async def job(opened: Runtime) -> _Known:
        await _finish(opened, restart=args.restart, rate=rate)
        await Runner(opened.leases, []).run(find_healing(opened.registry))
        return await _look(opened.registry, limit)

    return _tell(with_registry(args, job), as_json=args.json)


def status(args: argparse.Namespace) -> int:
    limit = read_count(args.limit, "--limit")
    return _tell(run(args, lambda registry: _look(registry, limit)), as_json=args.json)


async def _finish(opened: Runtime, *, restart: bool, rate: int | None) -> None:
    """Run a pass to its end, or follow it if a server is already running it."""
    from registry.jobs.runner import Job, Runner
    from registry.jobs.schedule import SCRUB

    scrub = opened.registry.scrub
    await scrub.begin(restart=restart)
    job = Job(SCRUB, _LOOK_EVERY, scrub.is_running, partial(scrub.run, rate))
    runner = Runner(opened.leases, [])
    blobs, size = await scrub.measure()
    row = await scrub.find()

    def read_progress() -> progress.Progress:
        done, read = (row.blobs, row.bytes) if row is not None else (0, 0)
        return progress.Progress(read, size, f"{done} of {blobs} blobs")

    async def follow() -> None:
        nonlocal row
        while True:
            row = await scrub.find()
            await asyncio.sleep(_LOOK_EVERY)

    following = asyncio.create_task(follow())
    try:
        with progress.show(read_progress):
            while await scrub.is_running():
                await runner.run(job)
                if await scrub.is_running():
                    await asyncio.sleep(_LOOK_EVERY)
    finally:
        following.cancel()


async def _look(registry: Services, limit: int) -> _Known:
    damaged: list[Damaged] = []
    async for each in registry.scrub.iter_damaged(limit):
        damaged.append(each)
        if len(damaged) == limit:
            break
    manifests = registry.scrub.manifests
    return _Known(
        await registry.scrub.find(),
        await registry.blobs.count_damaged(),
        damaged,
        await manifests.count(),
        await manifests.list_known(limit),
    )


def _tell(known: _Known, *, as_json: bool) -> int:
    if as_json:
        output.write_json(_as_json(known))
    else:
        output.write(_describe(known.row))
        if known.row and known.row.damaged and not known.count:
            output.write("All of them have been repaired.")
        if known.damaged:
            output.write_table(
                ("BLOB", "SIZE", "STATE", "BREAKS"),
                [
                    (each.blob.digest, each.blob.size, each.blob.state.value, tag)
                    for each in known.damaged
                    for tag in _list_tags(each.tags) or ["-"]
                ],
            )
        if known.count > len(known.damaged):
            output.write(f"and {known.count - len(known.damaged)} more (see --limit)")
        _tell_manifests(known)
        if known.count:
            output.write_note("To repair a damaged blob, push it again to any repository.")
    return 0 if known.is_clean else 1


def _tell_manifests(known: _Known) -> None:
    if known.manifests:
        output.write_table(
            ("MANIFEST", "REPOSITORY", "BREAKS"),
            [
                (each.digest, each.repository, tag)
                for each in known.manifests
                for tag in _list_tags(each.tags) or ["-"]
            ],
        )
        output.write_note(
            "These manifests cannot be read. Garbage collection deletes nothing of their "
            "repositories until they are pushed again or deleted."
        )
    if known.manifest_count > len(known.manifests):
        output.write(f"and {known.manifest_count - len(known.manifests)} more (see --limit)")


def _list_tags(tags: list[tuple[RepositoryName, str]]) -> list[str]:
    return [f"{name}:{tag}" for name, tag in tags]


def _describe(row: ScrubRow | None) -> str:
    if row is None:
        return "No scrub has been run."
    since = clock.rfc3339(row.started_at)
    what = f"{row.blobs} blobs of {format_size(row.bytes)}, {row.damaged} of them damaged"
    if row.unreadable:
        what += f", {row.unreadable} that could not be read"
    if row.is_running:
        return f"Running since {since}: {what}."
    return f"Ended {clock.rfc3339(row.finished_at or row.started_at)}, started {since}: {what}."


def _as_json(known: _Known) -> dict[str, Any]:
    row = known.row
    return {
        "scrub": row
        and {
            "running": row.is_running,
            "started_at": clock.rfc3339(row.started_at),
            "finished_at": clock.rfc3339(row.finished_at) if row.finished_at else None,
            "blobs": row.blobs,
            "bytes": row.bytes,
            "damaged": row.damaged,
            "unreadable": row.unreadable,
        },
        "damaged": known.count,
        "blobs": [
            {
                "digest": str(each.blob.digest),
                "size": each.blob.size,
                "state": each.blob.state.value,
                "tags": _list_tags(each.tags),
            }
            for each in known.damaged
        ],
        "unreadable": known.manifest_count,
        "manifests": [
            {
                "digest": str(each.digest),
                "repository": str(each.repository),
                "tags": _list_tags(each.tags),
            }
            for each in known.manifests
        ],
    }
