"""Content of blobs."""

import struct


def distinct_words(size: int) -> bytes:
    """Return `size` bytes, a multiple of four, in which each word of four occurs once."""
    count = size // 4
    return struct.pack(f">{count}I", *range(count))
