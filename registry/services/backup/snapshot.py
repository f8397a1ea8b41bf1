"""Description of a snapshot: `snapshot.json`, written last."""

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from registry import clock
from registry.errors import BackupError
from registry.metadata.content.blobs import BlobRow
from registry.metadata.maintenance.backup_snapshot import SnapshotFile
from storage.digest import Digest

FORMAT = 1
"""Version of the directory layout and its files. The metadata schema has its own version."""

NAME = "snapshot.json"
METADATA = "metadata.db"
KEYS = "keys.json"

PAGE_SIZE = 1000
"""Blobs read from a snapshot at a time."""

_TIME = "%Y%m%dT%H%M%S.%fZ"
_ID = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{6}")


class File(msgspec.Struct, frozen=True):
    """A file of the snapshot. `size` is in bytes."""

    size: int
    digest: str


class Snapshot(msgspec.Struct, frozen=True):
    """The registry at one point in time.

    `blobs` and `bytes` count the blobs in the backup. `missing` counts blobs that had a row but no
    intact bytes. `keys` is None if the backup contains no private keys.
    """

    id: str
    moorage: str
    schema: int
    taken_at: str
    metadata: File
    keys: File | None
    repositories: int
    manifests: int
    tags: int
    blobs: int
    bytes: int
    missing: int
    format: int = FORMAT

    @property
    def files(self) -> dict[str, File]:
        """The other files of the snapshot, by name."""
        return {METADATA: self.metadata} | ({KEYS: self.keys} if self.keys else {})


class _Signed(msgspec.Struct):
    """The JSON document. `digest` is the digest of `snapshot`, so that changes are detected."""

    snapshot: msgspec.Raw
    digest: str


def new_id() -> tuple[str, str]:
    """Return a new snapshot id, which sorts by time, and its time."""
    now = datetime.fromtimestamp(clock.now_us() / 1_000_000, UTC)
    return f"{now.strftime(_TIME)}-{secrets.token_hex(3)}", now.isoformat()


def is_id(name: str) -> bool:
    return _ID.fullmatch(name) is not None


def encode(snapshot: Snapshot) -> bytes:
    body = msgspec.json.encode(snapshot)
    document = _Signed(msgspec.Raw(body), str(Digest.of(body)))
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode(raw: bytes, name: str) -> Snapshot:
    """Parse the document of the snapshot `name`. Raises BackupError."""
    try:
        document = msgspec.json.decode(raw, type=_Signed)
        body = msgspec.json.format(document.snapshot, indent=-1)
        head = msgspec.json.decode(body, type=_Head)
        if head.format != FORMAT:
            raise BackupError(
                f"snapshot {name} has format {head.format}, but this version supports "
                f"{FORMAT}: use the version of Moorage that created it"
            )
        snapshot = msgspec.json.decode(body, type=Snapshot)
    except msgspec.MsgspecError as error:
        raise BackupError(f"snapshot {name} is damaged: {NAME} cannot be read") from error
    if str(Digest.of(bytes(body))) != document.digest or snapshot.id != name:
        raise BackupError(f"snapshot {name} is damaged: {NAME} has been modified")
    return snapshot


class _Head(msgspec.Struct):
    """The fields that all format versions have."""

    format: int


def hash_file(path: Path) -> File:
    """Return the size and digest of a file. Blocking. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return File(file.tell(), f"sha256:{digest.hexdigest()}")


async def iter_blobs(file: SnapshotFile, *, whole: bool) -> AsyncIterator[BlobRow]:
    """Yield the blobs of a snapshot in digest order."""
    last: Digest | None = None
    while True:
        rows = await asyncio.to_thread(file.list_page, last, PAGE_SIZE, whole=whole)
        for row in rows:
            yield row
        if len(rows) < PAGE_SIZE:
            return
        last = rows[-1].digest
