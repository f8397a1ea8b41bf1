"""What commands print: for people, or JSON with `--json`."""

import json
import sys
from collections.abc import Sequence
from typing import Any


def write(text: str) -> None:
    sys.stdout.write(text + "\n")


def write_json(value: Any) -> None:
    write(json.dumps(value, indent=2))


def write_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; nothing but the header where there are no rows."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        write("  ".join(padded).rstrip())


def complain(message: str) -> None:
    sys.stderr.write(f"moorage: {message}\n")
