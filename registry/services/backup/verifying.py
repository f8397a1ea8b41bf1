"""Verification of all content of a backup."""

import heapq
from collections.abc import AsyncIterator, Iterator
from itertools import groupby, islice

from msgspec import Struct

from registry.errors import BackupError
from registry.metadata.content.blobs import BlobRow
from registry.metadata.maintenance.backup_snapshot import SnapshotFile
from registry.services.backup.progress import Progress
from registry.services.backup.snapshot import METADATA, NAME, PAGE_SIZE
from registry.services.backup.target import BackupRepository
from registry.services.blob_copy import for_each


class Damage(Struct, frozen=True):
    """A damaged part of a snapshot. `what` is a file of the snapshot, or a digest."""

    snapshot: str
    what: str
    reason: str


async def verify(
    target: BackupRepository, names: list[str], progress: Progress, *, parallel: int = 4
) -> list[Damage]:
    """Hash everything the snapshots consist of, each blob once. Return the damage.

    Raises BackupError if the directory cannot be read.
    """
    wrong: list[Damage] = []
    sound = []
    for name in names:
        found = await target.run(lambda name=name: list_damaged(target, name))  # type: ignore[misc]
        wrong += found
        if not {METADATA, NAME} & {each.what for each in found}:
            sound.append(name)

    async def work(named: "tuple[BlobRow, list[str]]") -> None:
        row, needing = named
        reason = await target.find_fault(row.digest, row.size)
        progress.count(row, copied=False)
        if reason:
            wrong.extend(Damage(name, str(row.digest), reason) for name in needing)

    progress.blobs, progress.bytes = await target.run(lambda: _measure(target, sound))
    await for_each(iter_named(target, sound), work, parallel)
    return sorted(wrong, key=lambda each: (each.snapshot, each.what))


def list_damaged(target: BackupRepository, name: str) -> list[Damage]:
    """Return the damage of the snapshot's own files. Blocking."""
    try:
        found = target.read(name)
    except BackupError as error:
        return [Damage(name, NAME, str(error))]
    return [Damage(name, file, reason) for file, reason in target.list_damaged(found).items()]


async def iter_named(
    target: BackupRepository, names: list[str]
) -> AsyncIterator[tuple[BlobRow, list[str]]]:
    """Yield each needed blob once, with the snapshots that need it, in digest order."""
    each = iter(_merge([(name, target.open_metadata(name)) for name in names]))
    while some := await target.run(lambda: list(islice(each, PAGE_SIZE))):
        for one in some:
            yield one


def _merge(files: list[tuple[str, SnapshotFile]]) -> Iterator[tuple[BlobRow, list[str]]]:
    """Merge the blob lists of the snapshots, with at most one page of each in memory."""

    def walk(name: str, file: SnapshotFile) -> Iterator[tuple[BlobRow, str]]:
        rows = file.list_page(None, PAGE_SIZE)
        while rows:
            for row in rows:
                yield row, name
            rows = file.list_page(rows[-1].digest, PAGE_SIZE)

    walks = [walk(name, file) for name, file in files]
    merged = heapq.merge(*walks, key=lambda pair: pair[0].digest)
    for _, pairs in groupby(merged, key=lambda pair: pair[0].digest):
        found = list(pairs)
        yield found[0][0], [name for _, name in found]


def _measure(target: BackupRepository, names: list[str]) -> tuple[int, int]:
    """Return the number of blobs to read and their total size in bytes."""
    blobs = size = 0
    for row, _ in _merge([(name, target.open_metadata(name)) for name in names]):
        blobs += 1
        size += row.size
    return blobs, size
