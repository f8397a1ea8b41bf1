"""`moorage version`: the version of the program."""

import argparse

from registry.cli.kit import output
from registry.cli.kit.parsing import Parser


def declare(version: Parser) -> None:
    """Declare the command."""
    version.be(show, "moorage version")
    version.add_json()


def show(args: argparse.Namespace) -> int:
    from registry.version import find_version

    found = find_version()
    output.show({"version": found}, f"moorage {found}", as_json=args.json)
    return 0
