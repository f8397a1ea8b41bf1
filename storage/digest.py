"""Content digests in the form `algorithm:hex`, which identify every byte string in the registry.

Source: OCI image-spec descriptor.md, section Digests.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from hashlib import _Hash

ALGORITHMS = {"sha256": 64, "sha512": 128}
"""Hex digits of a digest, by supported algorithm."""

DEFAULT_ALGORITHM = "sha256"

_HEX = re.compile(r"[0-9a-f]+")


class DigestInvalidError(ValueError):
    """The text is not a digest, or its algorithm is not supported."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The content address of a byte string.

    Code outside this module creates digests only with `parse` and `of`.
    """

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `algorithm:hex`. Raises DigestInvalidError if the text is anything else."""
        algorithm, _, hex_digits = text.partition(":")
        length = ALGORITHMS.get(algorithm)
        if length is None:
            supported = " or ".join(f"{name}:" for name in ALGORITHMS)
            raise DigestInvalidError(f"a digest must start with {supported}")
        if len(hex_digits) != length or not _HEX.fullmatch(hex_digits):
            raise DigestInvalidError(
                f"a {algorithm} digest must have {length} lower-case hex digits"
            )
        return cls(algorithm, hex_digits)

    @classmethod
    def of(cls, data: bytes, algorithm: str = DEFAULT_ALGORITHM) -> Self:
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class Hasher:
    """A running hash that can be copied, so that a rejected chunk can be undone."""

    __slots__ = ("_hash", "algorithm")

    def __init__(self, algorithm: str, running: "_Hash | None" = None) -> None:
        self.algorithm = algorithm
        self._hash = running if running is not None else hashlib.new(algorithm)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._hash.update(data)

    def copy(self) -> "Hasher":
        return Hasher(self.algorithm, self._hash.copy())

    def digest(self) -> Digest:
        return Digest(self.algorithm, self._hash.hexdigest())
