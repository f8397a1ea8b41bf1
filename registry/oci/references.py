"""References, the last segment of a manifest's path: a tag or a digest.

Source: OCI distribution-spec, section Pulling manifests.
"""

import re
from dataclasses import dataclass
from typing import Self

from registry.errors import TagInvalidError
from storage.digest import Digest

_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A mutable name of one manifest in a repository. Untrusted text must go through `parse`."""

    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _TAG.fullmatch(text):
            raise TagInvalidError(
                f"invalid tag {text[:128]!a}: use 1 to 128 letters, digits, '_', '.' and "
                "'-', beginning with a letter, a digit or '_'"
            )
        return cls(text)

    def __str__(self) -> str:
        return self.value


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """Parse a tag or a digest. Raises TagInvalidError or DigestInvalidError.

    Text with a colon is parsed as a digest, because no tag contains one.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)
