"""Byte ranges of the model (RFC 9110, section 14)."""

import re

_ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def cut_all(asked: str, size: int) -> list[tuple[int, int]] | None:
    """Return first and last byte of each satisfiable range. None: the whole body."""
    cuts = [_cut(f"bytes={text}", size) for text in asked.removeprefix("bytes=").split(",")]
    if not asked.startswith("bytes=") or None in cuts:
        return None
    return [cut for cut in cuts if cut is not None and cut[0] <= cut[1]]


def _cut(asked: str, size: int) -> tuple[int, int] | None:
    """Return first and last byte, last before first if unsatisfiable. None: the whole body."""
    match = _ONE_RANGE.fullmatch(asked)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        # The last bytes of an empty blob are all of it (RFC 9110 section 14.1.2).
        return (max(0, size - int(last)), size - 1) if size else None
    if last and int(last) < int(first):
        return 1, 0
    return int(first), min(int(last or size), size - 1)
