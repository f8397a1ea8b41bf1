"""`moorage backup`: backups of the registry in another folder."""

import argparse
import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from registry.app import Runtime
from registry.auth.keys.key_encryption import require_strong
from registry.cli.kit import output
from registry.cli.kit.local import with_registry
from registry.cli.kit.parsing import read_count, read_option
from registry.config import read_passphrase
from registry.errors import BackupError, ConfigError
from registry.services.backup import pruning, verifying
from registry.services.backup.creating import Creator, Keys
from registry.services.backup.reading import Progress
from registry.services.backup.snapshot import Snapshot
from registry.services.backup.target import BackupRepository, open_target
from registry.units import format_size, parse_size
from registry.version import find_version

T = TypeVar("T")

_SHOWN = 20
"""Maximum number of blobs that text output names; JSON output has all."""


def create(args: argparse.Namespace) -> int:
    passphrase = find_passphrase(args) if args.with_keys else ""
    if args.with_keys:
        require_strong(passphrase)
    rate = read_option(args.pace, "--pace", parse_size) if args.pace else 0
    parallel = read_count(args.parallel, "--parallel")
    progress = Progress()

    async def work(opened: Runtime) -> Snapshot:
        keys = Keys(opened.keyring.list_private, passphrase) if args.with_keys else None
        async with (
            open_target(Path(args.target), alone=True, create=True) as target,
            shown(progress),
        ):
            known, version = opened.registry.blobs, find_version()
            creating = Creator(opened.database, known, target, progress, version)
            return await creating.run(keys=keys, parallel=parallel, rate=rate)

    made = with_registry(args, work)
    missing = [str(digest) for digest in sorted(progress.missing)]
    if args.json:
        copied = {"blobs": progress.copied, "bytes": progress.copied_bytes}
        output.write_json({"snapshot": _as_json(made), "copied": copied, "missing": missing})
    else:
        _tell(made, progress)
        complain_of(missing, "is not in it: the registry has no good bytes; a push heals it")
    return 1 if missing else 0


def _tell(made: Snapshot, progress: Progress) -> None:
    output.write(
        f"Snapshot {made.id}: {made.repositories} repositories, {made.tags} tags, "
        f"{made.manifests} manifests, {count(made.blobs, made.bytes)}; "
        f"{count(progress.copied, progress.copied_bytes)} were copied now."
    )
    if made.keys is None:
        output.write_note(
            "It has no private keys: after a restore people sign in again, and robots and personal "
            "access tokens need new secrets. --with-keys puts the keys in, encrypted."
        )


def list_all(args: argparse.Namespace) -> int:
    async def work(target: BackupRepository) -> list[Snapshot | str]:
        return await target.run(lambda: [_look(target, name) for name in target.list_ids()])

    found = _run(args, work, alone=False)
    snapshots = [each for each in found if isinstance(each, Snapshot)]
    damaged = [each for each in found if isinstance(each, str)]
    if args.json:
        output.write_json([_as_json(each) for each in snapshots])
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
    progress = Progress()

    async def work(target: BackupRepository) -> tuple[list[str], list[verifying.Damage]]:
        names = await target.run(target.list_ids)
        if args.snapshot is not None:
            names = [name for name in names if name == args.snapshot]
        if not names:
            raise BackupError(f"there is no complete snapshot {args.snapshot or ''}".rstrip())
        async with shown(progress):
            return names, await verifying.verify(target, names, progress)

    names, wrong = _run(args, work, alone=False)
    if args.json:
        output.write_json(
            {
                "snapshots": names,
                "blobs": progress.done,
                "bytes": progress.read,
                "wrong": [asdict(each) for each in wrong],
            }
        )
        return 1 if wrong else 0
    output.write(
        f"Read {len(names)} snapshots and {count(progress.done, progress.read)}: "
        + (f"{len(wrong)} things are wrong." if wrong else "all is as it was written.")
    )
    for each in wrong:
        output.write_error(f"{each.snapshot}: {each.what} is {each.reason}")
    if wrong:
        output.write_note(
            "A damaged blob is copied again by the next backup once its file is removed, a missing "
            "one at once, as long as the registry has it. A snapshot whose own files are damaged "
            "is lost."
        )
    return 1 if wrong else 0


def prune(args: argparse.Namespace) -> int:
    keep = read_count(args.keep, "--keep")

    async def work(target: BackupRepository) -> pruning.Pruned:
        return await pruning.prune(target, keep, dry_run=args.dry_run)

    done = _run(args, work, alone=True)
    if args.json:
        output.write_json(asdict(done))
    else:
        what = "would be removed" if args.dry_run else "were removed"
        output.write(f"{len(done.snapshots)} snapshots and {count(done.blobs, done.bytes)} {what}.")
    return 0


def _run(
    args: argparse.Namespace, work: Callable[[BackupRepository], Awaitable[T]], *, alone: bool
) -> T:
    """Run `work` on the backup folder, without a registry."""

    async def job() -> T:
        async with open_target(Path(args.target), alone=alone) as target:
            return await work(target)

    return asyncio.run(job())


def _as_json(snapshot: Snapshot) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(snapshot)
    return found


# The functions below are shared with `restore`.


def count(blobs: int, size: int) -> str:
    return f"{blobs} blobs of {format_size(size)}"


def complain_of(digests: list[str], what: str) -> None:
    """Print an error for the first digests, and the number of the others."""
    for digest in digests[:_SHOWN]:
        output.write_error(f"{digest} {what}")
    if len(digests) > _SHOWN:
        output.write_error(f"and {len(digests) - _SHOWN} more; --json names all")


def find_passphrase(args: argparse.Namespace) -> str:
    """Return the passphrase of the keys, from the first line of a file or from the environment.

    Raises ConfigError if neither is given.
    """
    if args.passphrase_file is None:
        found = read_passphrase()
    else:
        try:
            lines = Path(args.passphrase_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"{args.passphrase_file} cannot be read: {error}") from error
        found = lines[0] if lines else ""
    if not found:
        raise ConfigError(
            "the keys of a backup are encrypted with a passphrase: give it with --passphrase-file "
            "FILE or in MOORAGE_BACKUP_PASSPHRASE"
        )
    return found


def shown(progress: Progress) -> contextlib.AbstractAsyncContextManager[None]:
    """Show a progress bar on a terminal while the block runs."""

    def look() -> output.Progress:
        done = f"{progress.done} of {progress.blobs} blobs" if progress.blobs else progress.rows
        return output.Progress(progress.read, max(progress.bytes, 1), done)

    return output.show_progress(look)
