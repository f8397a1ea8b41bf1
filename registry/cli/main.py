"""`moorage`: the command line. Only the module of the noun that was typed is imported."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from registry.cli.kit.error_report import EXPECTED, describe
from registry.cli.kit.output import OutputClosedError, discard_stdout, flush, write_error
from registry.cli.kit.parsing import Parser

FAILED = 1
_INTERRUPTED = 130
_READER_GONE = 141

_EPILOG = """\
Run `moorage COMMAND --help` for the options and examples of a command.

Exit status:
  0    success
  1    failure, or a check that found a problem
  2    wrong usage
  130  interrupted
  141  the reader of the output has closed it (moorage … | head)
"""


@dataclass(frozen=True, slots=True)
class _Noun:
    """A noun. The module of its name, in its folder, declares it and does its work."""

    folder: str
    name: str
    summary: str

    @property
    def module(self) -> str:
        return f"registry.cli.commands.{self.folder}.{self.name}"


NOUNS = (
    _Noun("machine", "serve", "Run the registry"),
    _Noun("machine", "worker", "Run the background jobs without a server"),
    _Noun("machine", "config", "Check and show the settings"),
    _Noun("machine", "db", "Manage the database"),
    _Noun("machine", "storage", "Manage the blob stores"),
    _Noun("machine", "backup", "Back up and restore the registry"),
    _Noun("machine", "scrub", "Compare all stored bytes with their digests"),
    _Noun("machine", "fsck", "Compare the database with the blob stores"),
    _Noun("content", "repo", "Manage repositories"),
    _Noun("content", "tag", "Manage tags"),
    _Noun("content", "image", "Manage images: manifests with all that belongs to them"),
    _Noun("content", "usage", "Show how many bytes are used, and what deleting tags would free"),
    _Noun("content", "mirror", "Mirror other registries"),
    _Noun("access", "user", "Manage users"),
    _Noun("access", "group", "Manage groups of users"),
    _Noun("access", "robot", "Manage robot accounts for CI"),
    _Noun("access", "token", "Manage personal access tokens"),
    _Noun("access", "grant", "Manage permissions on repositories"),
    _Noun("access", "key", "Manage the keys that sign tokens"),
    _Noun("access", "audit", "Show the audit log"),
    _Noun("rules", "quota", "Limit the bytes in repositories"),
    _Noun("rules", "immutable", "Protect tags from being moved or deleted"),
    _Noun("rules", "hold", "Protect manifests from deletion"),
    _Noun("rules", "retention", "Delete tags and manifests by rules"),
    _Noun("rules", "gc", "Run and inspect garbage collection"),
    _Noun("machine", "completion", "Print a script that completes commands in a shell"),
    _Noun("machine", "version", "Show the version"),
)


class _ShowVersion(argparse.Action):
    """`--version`: print the version and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from registry.version import find_version  # noqa: PLC0415 - takes a while

        print(f"moorage {find_version()}")  # noqa: T201 - as argparse prints --help
        parser.exit()


def build_parser(typed: str | None = None) -> Parser:
    """Return the parser with the options of the noun that was typed, or of all nouns."""
    parser = Parser(prog="moorage", description="A Docker/OCI registry.", epilog=_EPILOG)
    parser.set_defaults(build_parser=build_parser)
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    for noun in NOUNS:
        added = parser.add_noun(noun.name, noun.summary)
        if typed in {None, noun.name}:
            importlib.import_module(noun.module).declare(added)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status, as listed in the help."""
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            flush()
    except OutputClosedError:
        discard_stdout()
        return _READER_GONE


def _run(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    try:
        parser = build_parser(words[0] if words else "")
        parser.require_known(words)
        args = parser.parse_args(words)
    except BrokenPipeError as error:  # raised by --help before Python 3.11.3
        raise OutputClosedError from error
    try:
        status: int = args.command(args)
    except EXPECTED as error:
        write_error(describe(error))
        return FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
