"""What a snapshot of a backup says about itself: `snapshot.json`, written last."""

import hashlib
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from registry import clock
from registry.errors import BackupError
from storage.digest import Digest

FORMAT = 1
"""Of the folder and its files. The schema of the metadata has a number of its own."""

NAME = "snapshot.json"
METADATA = "metadata.db"
KEYS = "keys.json"

_TIME = "%Y%m%dT%H%M%S.%fZ"
_ID = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{6}")


class File(msgspec.Struct, frozen=True):
    """A file beside it: `size` in bytes."""

    size: int
    digest: str


class Snapshot(msgspec.Struct, frozen=True):
    """The registry as of one moment. `bytes` of the `blobs` that are in the backup; `missing` are
    those that the registry had rows of, and no good bytes. Without `keys` there are none in it.
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
        """The files beside it, by name."""
        return {METADATA: self.metadata} | ({KEYS: self.keys} if self.keys else {})


class _Signed(msgspec.Struct):
    """The document: the digest is of what `snapshot` says, so that a change of it shows."""

    snapshot: msgspec.Raw
    digest: str


def new_id() -> tuple[str, str]:
    """A name for a snapshot that is taken now, which sorts by time, and that time."""
    now = datetime.fromtimestamp(clock.now() / 1_000_000, UTC)
    return f"{now.strftime(_TIME)}-{secrets.token_hex(3)}", now.isoformat()


def is_id(name: str) -> bool:
    return _ID.fullmatch(name) is not None


def encode(snapshot: Snapshot) -> bytes:
    body = msgspec.json.encode(snapshot)
    document = _Signed(msgspec.Raw(body), str(Digest.of(body)))
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode(raw: bytes, name: str) -> Snapshot:
    """Read the document of the snapshot called `name`; BackupError."""
    try:
        document = msgspec.json.decode(raw, type=_Signed)
        body = msgspec.json.format(document.snapshot, indent=-1)
        head = msgspec.json.decode(body, type=_Head)
        if head.format != FORMAT:
            raise BackupError(
                f"the snapshot {name} has format {head.format}, this version knows {FORMAT}: use "
                "the Moorage that made it"
            )
        snapshot = msgspec.json.decode(body, type=Snapshot)
    except msgspec.MsgspecError as error:
        raise BackupError(f"the snapshot {name} is damaged: {NAME} cannot be read") from error
    if str(Digest.of(bytes(body))) != document.digest or snapshot.id != name:
        raise BackupError(f"the snapshot {name} is damaged: {NAME} was changed")
    return snapshot


class _Head(msgspec.Struct):
    """What every format says."""

    format: int


def hash_file(path: Path) -> File:
    """Read a file to its end. Blocking; OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return File(file.tell(), f"sha256:{digest.hexdigest()}")
