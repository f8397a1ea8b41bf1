"""State of an upload to a bucket, as saved in the session's row."""

import json
from dataclasses import asdict, dataclass, field
from typing import Self


@dataclass(slots=True, kw_only=True)
class MultipartState:
    """The durable part of an upload session. Sizes are in bytes."""

    claim: int = 0
    """The claim that wrote this state. Later claims may have put tails that are not named here."""

    size: int = 0
    part_size: int = 0

    tail: str | None = None
    """Key of the bytes after the last part; they are shorter than a part."""

    key: str | None = None
    """Key of the multipart upload."""

    upload_id: str | None = None
    """ID of the multipart upload at the store."""

    parts: list[tuple[int, str]] = field(default_factory=list)
    """Number and ETag of each part, in order."""

    reserved: int = 0
    """Highest part number that any claim may have used.

    Stores differ in how they treat a second part with the same number, and a holder that lost its
    claim may still be sending.
    """

    sealed: bool = False
    """Whether the parts are complete, so that the upload may have been completed."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        if not text:
            return cls()
        found = cls(**json.loads(text))
        found.parts = [(int(number), str(etag)) for number, etag in found.parts]
        return found

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))
