"""`moorage backup restore`: restore a registry from a backup into an empty location."""

import argparse
import asyncio
import contextlib
from pathlib import Path

from registry import logs
from registry.app import open_unprovisioned
from registry.auth.keys.key_encryption import unseal
from registry.cli.kit import database, output
from registry.cli.kit.backups import complain_of, count, find_passphrase, shown
from registry.cli.kit.options import find_folder, load_settings
from registry.cli.kit.parsing import read_count
from registry.config import Settings
from registry.data_dir import DataDirectory
from registry.errors import ConfigError, ConflictError
from registry.services.backup.progress import Progress
from registry.services.backup.restoring import Restorer
from registry.services.backup.snapshot import Snapshot
from registry.services.backup.target import BackupRepository, open_target


def restore(args: argparse.Namespace) -> int:
    settings = load_settings(args)
    parallel = read_count(args.parallel, "--parallel")
    logs.configure(settings.log.format, "warning", access=False)
    folder = find_folder(settings)
    folder.create()
    progress = Progress()

    async def job() -> tuple[Snapshot, bool]:
        async with (
            open_target(Path(args.target), exclusive=False) as target,
            open_unprovisioned(settings) as opened,
        ):
            writer, name = opened.registry.blob_writer, opened.stores.current.name
            restoring = Restorer(opened.database, writer, name, target, progress)
            snapshot = await _choose(args, target, await restoring.find_begun())
            private = await _open_keys(args, target, snapshot)
            with shown(progress):
                if await restoring.find_begun() is None:
                    with _alone(settings, folder):
                        scratch = settings.data / "restoring.db"
                        await restoring.fill(snapshot, scratch, with_keys=private is not None)
                if private is not None:
                    await opened.keyring.adopt(private)
                done = await restoring.run(
                    snapshot, allow_missing=args.allow_missing, parallel=parallel
                )
            return snapshot, done

    try:
        snapshot, done = asyncio.run(job())
    finally:
        folder.close()
    _tell(args, snapshot, progress, done=done)
    return 0 if done and not progress.missing else 1


async def _choose(
    args: argparse.Namespace, target: BackupRepository, begun: str | None
) -> Snapshot:
    """Return the snapshot to restore: the given one, the one in progress, or the newest.

    Raises ConflictError if the restore of another snapshot is in progress here.
    """
    name: str | None = args.snapshot or begun
    if name is None:
        name = await target.run(target.find_newest)
    elif begun not in {None, name}:
        raise ConflictError(
            f"the restore of snapshot {begun} into this database is not complete: continue it with "
            f"--snapshot {begun}, or restore this snapshot into another database"
        )
    chosen = name
    return await target.run(lambda: target.read(chosen))


def _alone(settings: Settings, folder: DataDirectory) -> contextlib.AbstractContextManager[None]:
    """Exclude other processes while an embedded database is filled.

    A process that has opened the database before would not notice that it is being restored.
    """
    return (
        folder.exclusive(database.TIMEOUT_S)
        if database.is_embedded(settings)
        else contextlib.nullcontext()
    )


async def _open_keys(
    args: argparse.Namespace, target: BackupRepository, snapshot: Snapshot
) -> dict[str, bytes] | None:
    """Return the private keys in the snapshot, or None if it has none or `--without-keys` is set.

    Raises ConfigError if the passphrase is missing.
    """
    if snapshot.keys is None or args.without_keys:
        return None
    try:
        passphrase = find_passphrase(args)
    except ConfigError as error:
        raise ConfigError(f"{error}; or leave out the keys with --without-keys") from error
    raw = await target.run(lambda: target.read_keys(snapshot.id))
    return await target.run(lambda: unseal(raw, passphrase, snapshot.id))


def _tell(args: argparse.Namespace, snapshot: Snapshot, progress: Progress, *, done: bool) -> None:
    missing = [str(digest) for digest in sorted(progress.missing)]
    with_keys = snapshot.keys is not None and not args.without_keys
    if args.json:
        output.write_json(
            {
                "snapshot": snapshot.id,
                "complete": done,
                "keys": with_keys,
                "copied": {"blobs": progress.copied, "bytes": progress.copied_bytes},
                "missing": missing,
            }
        )
        return
    output.write(
        f"Copied and verified {count(progress.copied, progress.copied_bytes)} of snapshot "
        f"{snapshot.id}."
    )
    complain_of(missing, "is missing or damaged in the backup")
    if not done:
        output.write_error(
            "the restore is not complete, so the registry cannot be served: repair the backup and "
            "run this again, or add --allow-missing to leave out these blobs until they are pushed "
            "again"
        )
        return
    output.write(f"Restored the registry as of {snapshot.taken_at}. You can start the server now.")
    if not with_keys:
        output.write_note(
            "Private keys were not restored: users must sign in again with their passwords. "
            "Secrets of robots and personal access tokens work only if this registry has the keys "
            "that they were made with. If not, make new ones with moorage robot rotate and moorage "
            "token add."
        )
