"""`moorage storage`: the blob stores."""

import argparse
from typing import TYPE_CHECKING, Any

from registry.cli.kit import output, progress
from registry.cli.kit.local import run
from registry.cli.kit.parsing import Parser, read_count, read_option
from registry.units import format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from registry.services.maintenance.store_migration import Moved, Remaining
    from registry.services.services import Services


def declare(storage: Parser) -> None:
    """Declare the commands."""
    command = storage.add_verb(
        "copy",
        copy,
        "Move all blobs from the old store to the current one",
        "moorage storage copy --dry-run",
        "moorage storage copy --limit-rate 20MiB",
    )
    command.explain("The exit status is 1 while blobs remain in the old store.")
    command.add_argument(
        "--dry-run", action="store_true", help="report how much there is to move, and move nothing"
    )
    command.add_argument(
        "--parallel", metavar="N", default="4", help="blobs copied at once (default 4)"
    )
    command.add_argument(
        "--limit-rate", metavar="SIZE", help="maximum bytes per second, such as 20MiB"
    )
    command.add_argument(
        "--retain-old-for",
        metavar="DURATION",
        default="1h",
        help="how long bytes stay in the old store after their blob has moved (default 1h)",
    )


def copy(args: argparse.Namespace) -> int:
    from registry.services.maintenance.store_migration import Moved

    keep = read_option(args.retain_old_for, "--retain-old-for", parse_duration)
    rate = read_option(args.limit_rate, "--limit-rate", parse_size) if args.limit_rate else 0
    parallel = read_count(args.parallel, "--parallel")

    async def work(registry: "Services") -> "tuple[Moved, Remaining]":
        plan, moved = await registry.store_migration.measure(), Moved()
        if args.dry_run:
            return moved, plan
        with progress.show(lambda: _progress(moved, plan)):
            await registry.store_migration.run(moved, parallel=parallel, keep=keep, rate=rate)
        return moved, await registry.store_migration.measure()

    moved, rest = run(args, work)
    if args.json:
        output.write_json(_as_json(moved, rest))
    elif args.dry_run:
        output.write(f"{_count(rest)} to move.")
    else:
        _tell(moved, rest)
    return 0 if args.dry_run or not rest.blobs else 1


def _progress(moved: "Moved", plan: "Remaining") -> progress.Progress:
    return progress.Progress(moved.read, plan.bytes, f"{moved.blobs} of {plan.blobs} blobs")


def _as_json(moved: "Moved", rest: "Remaining") -> dict[str, Any]:
    troubles = [{"digest": str(each.digest), "reason": each.reason} for each in moved.failures]
    done = {"blobs": moved.blobs, "bytes": moved.bytes, "problems": troubles}
    left = {
        "blobs": rest.blobs,
        "bytes": rest.bytes,
        "upload_sessions": rest.sessions,
        "pending_deletions": rest.pending_deletions,
    }
    return {"moved": done, "left": left}


def _count(rest: "Remaining") -> str:
    return f"{rest.blobs} blobs of {format_size(rest.bytes)}"


def _tell(moved: "Moved", rest: "Remaining") -> None:
    output.write(f"Moved {moved.blobs} blobs of {format_size(moved.bytes)}.")
    for trouble in moved.failures:
        output.write_error(
            f"{trouble.digest} cannot be moved: {trouble.reason}; push it again to repair it"
        )
    if rest.blobs:
        output.write_error(f"{_count(rest)} are still in the old store: run this again")
        if rest.blobs > len(moved.failures):
            output.write_error(
                "some of them are new: a server may still push to the old store; restart all "
                "servers with the new settings"
            )
    elif rest.sessions or rest.pending_deletions:
        output.write(
            f"The old store has no more blobs, but {rest.sessions} open upload sessions and "
            f"{rest.pending_deletions} keys that a server is about to remove: leave "
            "[old_storage] in the settings until this command reports that the old store is empty."
        )
    else:
        output.write("The old store is empty: remove [old_storage] from the settings.")
