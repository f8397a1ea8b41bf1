"""Output of commands, as text or, with `--json`, as JSON."""

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
"""Interval between two updates of a progress bar, in seconds."""


class OutputClosedError(Exception):
    """Standard output that its reader has closed.

    Not an OSError, because broken pipes and sockets of the registry itself must be reported.
    """


def write(text: str) -> None:
    try:
        sys.stdout.write(_printable(text) + "\n")
    except BrokenPipeError as error:
        raise OutputClosedError from error


def flush() -> None:
    """Flush standard output. Raises OutputClosedError if the reader has closed it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosedError from error


def discard_stdout() -> None:
    """Discard the unread output, which Python would try to write again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def write_json(value: Any) -> None:
    write(json.dumps(value, indent=2))


def write_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table with a header, each column as wide as its widest cell."""
    cells = [list(header), *([_readable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        write("  ".join(padded).rstrip())


def write_row(cells: Sequence[object]) -> None:
    """Write one row without alignment, for rows that arrive one by one."""
    write("  ".join(_readable(str(cell)) for cell in cells).rstrip())


def _readable(text: str) -> str:
    """Escape control characters, because some of the text comes from other users."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _printable(text: str) -> str:
    """Escape control characters in each line of the text."""
    return "\n".join(map(_readable, text.split("\n")))


def show(value: Any, text: str, *, as_json: bool) -> None:
    """Write the result of a command: the value as JSON, or the text for people."""
    if as_json:
        write_json(value)
    else:
        write(text)


def count(number: int, noun: str) -> str:
    """Return `1 tag` or `3 tags`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def write_note(text: str) -> None:
    """Write a hint to standard error, separate from the result."""
    sys.stderr.write(_printable(text) + "\n")


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a long operation: `done` of `total`, and a text."""

    done: int
    total: int
    text: str


def draw_progress(done: int, total: int, text: str) -> None:
    """Redraw the progress bar on standard error if it is a terminal."""
    if sys.stderr.isatty():
        share = min(1.0, done / total) if total else 1.0
        bar = "#" * round(share * _BAR)
        sys.stderr.write(f"\r\x1b[K[{bar:<{_BAR}}] {share:4.0%}  {_readable(text)}")
        sys.stderr.flush()


def end_progress() -> None:
    """End the line of the progress bar."""
    if sys.stderr.isatty():
        sys.stderr.write("\n")


@contextlib.asynccontextmanager
async def show_progress(look: Callable[[], Progress]) -> AsyncIterator[None]:
    """Show the progress that `look` returns, at intervals, while the block runs."""

    async def show() -> None:
        while True:
            now = look()
            draw_progress(now.done, now.total, now.text)
            await asyncio.sleep(_EVERY)

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        showing.cancel()
        end_progress()


def write_error(message: str) -> None:
    """Write an error message to standard error, as a log record if every line must be JSON."""
    if logs.is_json_only():
        logger.error("%s", message)
    else:
        sys.stderr.write(f"moorage: {_printable(message)}\n")
