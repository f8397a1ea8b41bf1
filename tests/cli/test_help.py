"""Help of commands, hints for mistyped words, and the time that both take."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from registry.cli.kit.parsing import Parser
from registry.cli.main import NOUNS, build_parser, main
from registry.version import find_version
from tests.support.servers.server import ROOT

HEAVY = {"argon2", "boto3", "httpx", "jwt", "msgspec", "rich", "shtab", "sqlalchemy", "starlette"}


def list_commands(parser: Parser) -> Iterator[Parser]:
    """Yield the parsers of all commands below the parser."""
    if not parser.commands:
        yield parser
    for each in parser.commands.values():
        yield from list_commands(each)


COMMANDS = list(list_commands(build_parser()))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each.prog)
def test_every_command_and_option_has_a_help_text(command: Parser) -> None:
    assert command.description
    assert command.description.endswith(".")
    for argument in command.arguments:
        assert argument.help, argument
        assert not argument.help.endswith("."), argument.help


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each.prog)
def test_every_command_has_examples_that_it_can_parse(command: Parser) -> None:
    heading, *examples = (command.epilog or "").splitlines()
    assert heading == "Examples:"
    assert examples
    for example in examples:
        line = example.partition(" > ")[0]
        program, *words = shlex.split(line)
        assert f"{program} {' '.join(words)}".startswith(command.prog)
        args = build_parser(words[0]).parse_args(words)
        assert args.command == command.get_default("command")


@pytest.mark.parametrize("noun", NOUNS, ids=lambda each: each.name)
def test_help_of_a_command_imports_only_what_it_needs(noun: argparse.Namespace) -> None:
    """`moorage COMMAND --help` is quick because it does not load the registry."""
    loaded = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys, registry.cli.main as m; m.build_parser(sys.argv[1]); print(*sys.modules)",
            noun.name,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert noun.module in loaded
    assert not HEAVY.intersection(loaded)
    others = {each.module for each in NOUNS} - {
        noun.module,
        "registry.cli.commands.content.tag",  # image and usage parse references to tags
    }
    assert not others.intersection(loaded)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["usr", "list"], "unknown command 'usr'; did you mean 'user'?"),
        (["user", "lst"], "unknown command 'lst'; did you mean 'list'?"),
        (["user", "xyz"], "unknown command 'xyz'; choose from add, passwd, change, disable"),
        (["audit", "list", "--lmit", "5"], "unknown option '--lmit'; did you mean '--limit'?"),
        (["gc", "run", "--dryrun"], "unknown option '--dryrun'; did you mean '--dry-run'?"),
        (["hold", "add", "--resaon=x"], "unknown option '--resaon'; did you mean '--reason'?"),
        (["audit", "list", "--lim", "5"], "unknown option '--lim'; did you mean '--limit'?"),
    ],
)
def test_a_mistyped_word_names_the_nearest(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert hint.replace("add, passwd", "add, list, passwd") in capsys.readouterr().err


def test_words_that_begin_with_dashes_can_be_arguments() -> None:
    build_parser("user").require_known(["user", "add", "--", "--admn"])


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["help", "user", "add"], ["user", "add", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith("usage: moorage user add ")
    with pytest.raises(SystemExit):
        main(["help"])
    said = capsys.readouterr().out
    for status in ("0 ", "1 ", "2 ", "130", "141"):
        assert f"\n  {status}" in said
    for noun in NOUNS:
        assert f"\n    {noun.name}" in said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"moorage {find_version()}\n"
    assert main(["version", "--json"]) == 0
    assert capsys.readouterr().out == f'{{\n  "version": "{find_version()}"\n}}\n'
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"moorage {find_version()}\n"
