"""Questions before something is removed that does not come back."""

import argparse
import sys

from registry.errors import NotConfirmedError

_ANSWERS = {"y", "yes"}


def add_option(command: argparse.ArgumentParser) -> None:
    """Add `--yes` to a command that asks."""
    command.add_argument("--yes", action="store_true", help="remove it without asking")


def is_needed(args: argparse.Namespace) -> bool:
    """Return whether to ask: where a person types commands. Scripts are not asked."""
    return not args.yes and sys.stdin.isatty()


def require(consequences: str) -> None:
    """Show what will be removed and ask; NotConfirmedError unless the answer is yes."""
    sys.stderr.write(f"{consequences} Continue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in _ANSWERS:
        raise NotConfirmedError("nothing was removed")
