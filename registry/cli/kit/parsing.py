"""Helpers that declare commands as nouns with verbs, and parse option values."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from registry.errors import ConfigError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - has no other name

Value = TypeVar("Value")


def read_option(text: str, option: str, parse: Callable[[str], Value]) -> Value:
    """Parse the value of an option.

    Raises ConfigError, which names the option, if `parse` raises ValueError.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: {error}") from error


def read_count(text: str, option: str) -> int:
    """Parse a whole number above zero. Raises ConfigError for any other text."""
    count = read_option(text, option, int)
    if count < 1:
        raise ConfigError(f"{option} is a whole number above zero")
    return count


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
