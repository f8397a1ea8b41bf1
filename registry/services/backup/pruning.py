"""Deletion of old snapshots and of the blobs that only they need."""

from msgspec import Struct, field

from registry.errors import BackupError
from registry.services.backup.target import BackupRepository
from registry.services.backup.verifying import iter_named, list_damaged
from storage.digest import Digest


class Pruned(Struct):
    """The content that pruning deleted or would delete. `bytes` is the size of the blobs."""

    snapshots: list[str] = field(default_factory=list)
    blobs: int = 0
    bytes: int = 0


async def prune(target: BackupRepository, keep: int, *, dry_run: bool = False) -> Pruned:
    """Keep the newest `keep` snapshots, at least one, and the blobs that they need.

    An interrupted run is completed by the next one. Raises BackupError if a snapshot to be kept is
    damaged: it is then unknown which blobs it needs, so nothing is deleted.
    """
    names = await target.run(target.list_ids)
    kept, gone = names[-keep:], names[:-keep]
    if not kept:
        raise BackupError(f"no complete snapshot in {target.folder}")
    for name in kept:
        for wrong in await target.run(lambda name=name: list_damaged(target, name)):  # type: ignore[misc]
            raise BackupError(
                f"{wrong.what} of snapshot {name}, which would be kept, is damaged: nothing "
                "was deleted, because it is unknown which blobs the snapshot needs"
            )
    if not dry_run:
        await target.tidy()
        for name in gone:
            await target.run(lambda name=name: target.remove(name))  # type: ignore[misc]
    return await _remove_blobs(target, kept, Pruned(gone), dry_run=dry_run)


async def _remove_blobs(
    target: BackupRepository, kept: list[str], pruned: Pruned, *, dry_run: bool
) -> Pruned:
    """Delete blobs that are not needed, in one merge pass over two lists in digest order."""
    needed = iter_named(target, kept)
    next_needed: Digest | None = None
    more = True
    async for digest, size in target.iter_blobs():
        while more and (next_needed is None or next_needed < digest):
            row = await anext(needed, None)
            more, next_needed = row is not None, row[0].digest if row else next_needed
        if digest == next_needed:
            continue
        if not dry_run:
            await target.delete(digest)
        pruned.blobs += 1
        pruned.bytes += size
    return pruned
