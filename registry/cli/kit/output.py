"""Output of commands, as text or, with `--json`, as JSON.

A table fits the terminal, where long cells take several lines. In a pipe or a file, each row is one
complete line, and tabs separate the cells, so that `grep` and `cut` work.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from registry import logs

logger = logging.getLogger("moorage")

_GAP = 2
"""Spaces between two columns."""


class OutputClosedError(Exception):
    """Standard output that its reader has closed.

    Not an OSError, because broken pipes and sockets of the registry itself must be reported.
    """


def write(text: str) -> None:
    _write_line(_printable(text))


def write_script(text: str) -> None:
    """Write text of this program as it is, with control characters such as tabs."""
    _write_line(text)


def _write_line(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
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
    write(json.dumps(value, indent=2, default=to_json))


def to_json(value: Any) -> Any:
    """Return a result of an operation as values for `json.dumps`."""
    import msgspec

    return msgspec.to_builtins(value)


def write_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table with a header."""
    cells = [[readable(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw_table(header, cells)
        return
    for row in [header, *cells]:
        _write_line("\t".join(row))


def write_row(cells: Sequence[object]) -> None:
    """Write one row without alignment, for rows that arrive one by one."""
    between = " " * _GAP if sys.stdout.isatty() else "\t"
    _write_line(between.join(readable(str(cell)) for cell in cells))


def _draw_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Draw a table on a terminal, in colour unless NO_COLOR is set."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout)
    if console.no_color:
        console = Console(file=sys.stdout, color_system=None)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold cyan")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def readable(text: str) -> str:
    """Escape control characters, because some of the text comes from other users."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _printable(text: str) -> str:
    """Escape control characters in each line of the text."""
    return "\n".join(map(readable, text.split("\n")))


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


def write_error(message: str) -> None:
    """Write an error message to standard error, as a log record if every line must be JSON."""
    if logs.is_json_only():
        logger.error("%s", message)
    else:
        sys.stderr.write(f"moorage: {_printable(message)}\n")
