"""Confirmation of commands that cannot be undone."""

import argparse
import sys

from registry.errors import NotConfirmedError

_ANSWERS = {"y", "yes"}


def add_option(command: argparse.ArgumentParser) -> None:
    """Add the option `--yes` to a command that asks for confirmation."""
    command.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def is_needed(args: argparse.Namespace) -> bool:
    """Return whether to ask for confirmation. Only people at a terminal are asked, not scripts."""
    return not args.yes and sys.stdin.isatty()


def require(consequences: str) -> None:
    """Show the consequences and ask. Raises NotConfirmedError unless the answer is yes."""
    sys.stderr.write(f"{consequences} Continue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in _ANSWERS:
        raise NotConfirmedError("not confirmed: nothing was removed")
