"""Options and output that the commands for backups share."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from registry.cli.kit import output, progress
from registry.errors import ConfigError
from registry.units import format_size

if TYPE_CHECKING:
    from registry.services.backup.progress import Progress

_SHOWN = 20
"""Maximum number of blobs that text output names; JSON output has all."""


def count(blobs: int, size: int) -> str:
    return f"{blobs} blobs of {format_size(size)}"


def complain_of(digests: list[str], what: str) -> None:
    """Print an error for the first digests, and the number of the others."""
    for digest in digests[:_SHOWN]:
        output.write_error(f"{digest} {what}")
    if len(digests) > _SHOWN:
        output.write_error(f"and {len(digests) - _SHOWN} more; --json lists all")


def find_passphrase(args: argparse.Namespace) -> str:
    """Return the passphrase of the keys, from the first line of a file or from the environment.

    Raises ConfigError if neither is given.
    """
    from registry.config import read_passphrase

    if args.passphrase_file is None:
        found = read_passphrase()
    else:
        try:
            lines = Path(args.passphrase_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"{args.passphrase_file} cannot be read: {error}") from error
        found = lines[0] if lines else ""
    if not found:
        raise ConfigError(
            "the passphrase that encrypts the keys of a backup is missing: set it with "
            "--passphrase-file FILE or in MOORAGE_BACKUP_PASSPHRASE"
        )
    return found


def shown(copying: Progress) -> contextlib.AbstractContextManager[None]:
    """Draw the progress while the block runs."""

    def read_progress() -> progress.Progress:
        done = f"{copying.done} of {copying.blobs} blobs" if copying.blobs else copying.rows
        return progress.Progress(copying.read, copying.bytes, done)

    return progress.show(read_progress)
