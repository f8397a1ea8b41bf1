"""What commands print: for people, or JSON with `--json`."""

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from registry import logs

logger = logging.getLogger("moorage")

_BAR = 30
_EVERY = 0.2
"""Seconds between two looks at how far work is."""


class ReaderGoneError(Exception):
    """Nobody reads what the command prints any more. Not an OSError: the pipes and sockets of the
    registry itself break with those, which is worth a word.
    """


def write(text: str) -> None:
    try:
        sys.stdout.write(_printable(text) + "\n")
    except BrokenPipeError as error:
        raise ReaderGoneError from error


def flush() -> None:
    """Write out what was printed."""
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGoneError from error


def leave() -> None:
    """Drop what nobody reads, which Python would try once more to write at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def write_json(value: Any) -> None:
    write(json.dumps(value, indent=2))


def write_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; nothing but the header where there are no rows."""
    cells = [list(header), *([_readable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        write("  ".join(padded).rstrip())


def write_row(cells: Sequence[object]) -> None:
    """A row by itself, where nobody knows yet how wide those are that follow."""
    write("  ".join(_readable(str(cell)) for cell in cells).rstrip())


def _readable(text: str) -> str:
    """Escape what would move the cursor: some of it was written by others."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _printable(text: str) -> str:
    """As `_readable`, of text that has lines."""
    return "\n".join(map(_readable, text.split("\n")))


def show(value: Any, text: str, *, as_json: bool) -> None:
    """Write what came out: the value as JSON, or the text for people."""
    if as_json:
        write_json(value)
    else:
        write(text)


def count(number: int, noun: str) -> str:
    """Return `1 tag` or `3 tags`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def hint(text: str) -> None:
    """Say something beside the result, where it is in nobody's way."""
    sys.stderr.write(_printable(text) + "\n")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far long work is, of `total` in all."""

    done: int
    total: int
    text: str


def show_progress(done: int, total: int, text: str) -> None:
    """Draw how far long work is over the line before, where a person looks on."""
    if sys.stderr.isatty():
        share = min(1.0, done / total) if total else 1.0
        bar = "#" * round(share * _BAR)
        sys.stderr.write(f"\r\x1b[K[{bar:<{_BAR}}] {share:4.0%}  {_readable(text)}")
        sys.stderr.flush()


def end_progress() -> None:
    """Leave the line of the bar."""
    if sys.stderr.isatty():
        sys.stderr.write("\n")


@contextlib.asynccontextmanager
async def shown(look: Callable[[], Progress]) -> AsyncIterator[None]:
    """Show meanwhile how far the work is, every now and then."""

    async def show() -> None:
        while True:
            now = look()
            show_progress(now.done, now.total, now.text)
            await asyncio.sleep(_EVERY)

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        showing.cancel()
        end_progress()


def complain(message: str) -> None:
    """Write an error for people, or as a record where every line must be JSON."""
    if logs.is_json_only():
        logger.error("%s", message)
    else:
        sys.stderr.write(f"moorage: {_printable(message)}\n")
