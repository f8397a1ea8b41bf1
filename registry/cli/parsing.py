"""How commands are declared: nouns, and below each its verbs."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - has no other name


def add_group(commands: "Commands", name: str, summary: str) -> "Commands":
    group = commands.add_parser(name, help=summary, description=summary)
    return group.add_subparsers(metavar="COMMAND", required=True)


def add_command(
    commands: "Commands",
    name: str,
    summary: str,
    target: str,
    parents: list[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add a command; `target` is `module:function` below this package."""
    command = commands.add_parser(name, help=summary, description=summary, parents=parents)
    command.set_defaults(command=target)
    return command
