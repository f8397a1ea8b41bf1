"""`moorage backup`: backups of the registry in another folder."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from registry.cli.kit import output, progress
from registry.cli.kit.backups import complain_of, count, find_passphrase, shown
from registry.cli.kit.local import with_registry
from registry.cli.kit.parsing import Parser, read_count, read_option
from registry.errors import BackupError
from registry.units import format_size, parse_size

if TYPE_CHECKING:
    from registry.app import Runtime
    from registry.services.backup.progress import Progress
    from registry.services.backup.pruning import Pruned
    from registry.services.backup.snapshot import Snapshot
    from registry.services.backup.target import BackupRepository
    from registry.services.backup.verifying import Damage

T = TypeVar("T")


def declare(backup: Parser) -> None:
    """Declare the commands."""
    making = backup.add_verb(
        "create",
        create,
        "Add a snapshot to a backup directory while the registry serves",
        "moorage backup create /backup/moorage",
        "moorage backup create /backup/moorage --with-keys --passphrase-file passphrase",
    )
    listing = backup.add_verb(
        "list", list_all, "List the complete snapshots", "moorage backup list /backup/moorage"
    )
    verifying = backup.add_verb(
        "verify",
        verify,
        "Read everything in a backup directory, and report what is damaged",
        "moorage backup verify /backup/moorage",
    )
    restoring = backup.add_verb(
        "restore",
        restore,
        "Restore a snapshot into an empty registry",
        "moorage backup restore /backup/moorage --without-keys",
    )
    pruning = backup.add_verb(
        "prune",
        prune,
        "Remove old snapshots and the blobs that only they need",
        "moorage backup prune /backup/moorage --keep-last 30",
    )
    for command in (making, listing, verifying, restoring, pruning):
        command.add_argument("target", metavar="TARGET", help="directory of the backups")
    for command in (making, restoring):
        _declare_copy(command)
    making.add_argument(
        "--with-keys", action="store_true", help="include the private keys, encrypted"
    )
    making.add_argument(
        "--limit-rate", metavar="SIZE", help="maximum bytes per second, such as 20MiB"
    )
    restoring.add_argument(
        "--without-keys", action="store_true", help="leave out the private keys in the snapshot"
    )
    restoring.add_argument(
        "--allow-missing", action="store_true", help="open the registry without damaged blobs"
    )
    verifying.add_argument("--snapshot", metavar="ID", help="only this snapshot (default: all)")
    restoring.add_argument("--snapshot", metavar="ID", help="the snapshot (default: the newest)")
    pruning.add_argument(
        "--keep-last", metavar="N", required=True, help="number of the newest snapshots to keep"
    )
    pruning.add_argument(
        "--dry-run", action="store_true", help="report what would be removed, and remove nothing"
    )


def _declare_copy(command: Parser) -> None:
    command.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help="file whose first line is the passphrase that encrypts private keys (default: the "
        "passphrase in MOORAGE_BACKUP_PASSPHRASE)",
    )
    command.add_argument(
        "--parallel", metavar="N", default="4", help="blobs copied at once (default 4)"
    )


def create(args: argparse.Namespace) -> int:
    from registry.auth.keys.key_encryption import require_strong
    from registry.services.backup.creating import Creator, Keys
    from registry.services.backup.progress import Progress
    from registry.services.backup.target import open_target
    from registry.version import find_version

    passphrase = find_passphrase(args) if args.with_keys else ""
    if args.with_keys:
        require_strong(passphrase)
    rate = read_option(args.limit_rate, "--limit-rate", parse_size) if args.limit_rate else 0
    parallel = read_count(args.parallel, "--parallel")
    copying = Progress()

    async def work(opened: Runtime) -> Snapshot:
        keys = Keys(opened.keyring.list_private, passphrase) if args.with_keys else None
        async with open_target(Path(args.target), exclusive=True, create=True) as target:
            known, version = opened.registry.blobs, find_version()
            creating = Creator(opened.database, known, target, copying, version)
            with shown(copying):
                return await creating.run(keys=keys, parallel=parallel, rate=rate)

    made = with_registry(args, work)
    missing = [str(digest) for digest in sorted(copying.missing)]
    if args.json:
        copied = {"blobs": copying.copied, "bytes": copying.copied_bytes}
        output.write_json({"snapshot": _as_json(made), "copied": copied, "missing": missing})
    else:
        _tell(made, copying)
        complain_of(
            missing, "is not in the snapshot: the registry has no intact bytes of it; push it again"
        )
    return 1 if missing else 0


def _tell(made: Snapshot, copying: Progress) -> None:
    output.write(
        f"Snapshot {made.id}: {made.repositories} repositories, {made.tags} tags, "
        f"{made.manifests} manifests, {count(made.blobs, made.bytes)}; "
        f"copied {count(copying.copied, copying.copied_bytes)} now."
    )
    if made.keys is None:
        output.write_note(
            "The snapshot has no private keys: after a restore, users must sign in again, and "
            "robots and personal access tokens need new secrets. To include the keys, encrypted, "
            "use --with-keys."
        )


def restore(args: argparse.Namespace) -> int:
    from registry.cli.commands.machine import backup_restore

    return backup_restore.restore(args)


def list_all(args: argparse.Namespace) -> int:
    from registry.services.backup.snapshot import Snapshot

    async def work(target: BackupRepository) -> list[Snapshot | str]:
        with progress.wait("reading the snapshots"):
            return await target.run(lambda: [_look(target, name) for name in target.list_ids()])

    found = _run(args, work, exclusive=False)
    snapshots = [each for each in found if isinstance(each, Snapshot)]
    damaged = [each for each in found if isinstance(each, str)]
    if args.json:
        output.write_json({"snapshots": [_as_json(each) for each in snapshots]})
    else:
        rows = [
            [
                *(each.id, each.taken_at, each.repositories, each.tags, each.blobs),
                *(format_size(each.bytes), each.missing, "yes" if each.keys else "no"),
            ]
            for each in snapshots
        ]
        header = ["SNAPSHOT", "TAKEN", "REPOSITORIES", "TAGS", "BLOBS", "SIZE", "MISSING", "KEYS"]
        output.write_table(header, rows)
    for reason in damaged:
        output.write_error(reason)
    return 1 if damaged else 0


def _look(target: BackupRepository, name: str) -> Snapshot | str:
    """Return the snapshot, or the message of the error if it cannot be read."""
    try:
        return target.read(name)
    except BackupError as error:
        return str(error)


def verify(args: argparse.Namespace) -> int:
    from registry.services.backup import verifying
    from registry.services.backup.progress import Progress

    reading = Progress()

    async def work(target: BackupRepository) -> tuple[list[str], list[Damage]]:
        names = await target.run(target.list_ids)
        if args.snapshot is not None:
            names = [name for name in names if name == args.snapshot]
        if not names:
            raise BackupError(
                f"no complete snapshot {args.snapshot or ''}".rstrip() + f" in {args.target}"
            )
        with shown(reading):
            return names, await verifying.verify(target, names, reading)

    names, wrong = _run(args, work, exclusive=False)
    if args.json:
        output.write_json(
            {
                "snapshots": names,
                "blobs": reading.done,
                "bytes": reading.read,
                "problems": wrong,
            }
        )
        return 1 if wrong else 0
    output.write(
        f"Read {len(names)} snapshots and {count(reading.done, reading.read)}: "
        + (f"found {output.count(len(wrong), 'problem')}." if wrong else "found no problem.")
    )
    for each in wrong:
        output.write_error(f"{each.snapshot}: {each.what} is {each.reason}")
    if wrong:
        output.write_note(
            "The next backup copies a missing blob again if the registry has it. To have a damaged "
            "blob copied again, remove its file first. A snapshot whose own files are damaged is "
            "lost."
        )
    return 1 if wrong else 0


def prune(args: argparse.Namespace) -> int:
    from registry.services.backup import pruning

    keep = read_count(args.keep_last, "--keep-last")

    async def work(target: BackupRepository) -> Pruned:
        with progress.wait("removing snapshots"):
            return await pruning.prune(target, keep, dry_run=args.dry_run)

    done = _run(args, work, exclusive=True)
    if args.json:
        output.write_json(done)
    else:
        what = "would be removed" if args.dry_run else "were removed"
        output.write(f"{len(done.snapshots)} snapshots and {count(done.blobs, done.bytes)} {what}.")
    return 0


def _run(
    args: argparse.Namespace, work: Callable[[BackupRepository], Awaitable[T]], *, exclusive: bool
) -> T:
    """Run `work` on the backup directory, without a registry."""
    from registry.services.backup.target import open_target

    async def job() -> T:
        async with open_target(Path(args.target), exclusive=exclusive) as target:
            return await work(target)

    return asyncio.run(job())


def _as_json(snapshot: Snapshot) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(snapshot)
    return found
