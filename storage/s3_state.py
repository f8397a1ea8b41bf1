"""What an upload session's row remembers of its bytes in a bucket."""

import json
from dataclasses import asdict, dataclass, field
from typing import Self


@dataclass(slots=True, kw_only=True)
class S3State:
    """What is durable of a session. Sizes in bytes."""

    claim: int = 0
    """The claim that wrote this: later ones may have put tails that it does not name."""

    size: int = 0
    part_size: int = 0

    tail: str | None = None
    """Key of the bytes behind the last part, fewer than one."""

    key: str | None = None
    """Key of the multipart upload."""

    upload: str | None = None
    """Its id at the store."""

    parts: list[tuple[int, str]] = field(default_factory=list)
    """Number and ETag of each part, in their order."""

    used: int = 0
    """The highest part number that anybody may have used. Stores differ in what a second part of
    the same number does, and a holder that lost its claim may still be sending."""

    sealed: bool = False
    """Whether the parts are all there is, so that the upload may have been completed."""

    @classmethod
    def read(cls, text: str) -> Self:
        if not text:
            return cls()
        found = cls(**json.loads(text))
        found.parts = [(int(number), str(etag)) for number, etag in found.parts]
        return found

    def write(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))
