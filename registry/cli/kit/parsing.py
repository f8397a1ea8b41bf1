"""Parsers of the commands, and hints that name the nearest word for a mistyped one."""

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from registry.errors import ConfigError

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction["Parser"]  # noqa: SLF001 - has no other name

Value = TypeVar("Value")
Command = Callable[[argparse.Namespace], int]
"""The work of a command. It returns the exit status."""

EXAMPLE_DIGEST = f"sha256:{'0123456789abcdef' * 4}"

_EXAMPLES = "Examples:\n"
_INDENT = 30
"""Maximum indentation of the texts of options."""


class _HelpFormatter(argparse.HelpFormatter):
    """Formatter that fills paragraphs and leaves lists of examples as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_INDENT)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        paragraphs = text.split("\n\n")
        return "\n\n".join(
            each if "\n  " in each else fill(each, width, indent) for each in paragraphs
        )


class Parser(argparse.ArgumentParser):
    """Parser of a noun or of a command.

    A noun is either a command itself or has a command for each of its verbs. Options cannot be
    abbreviated, so that a new option never makes an old script ambiguous.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _HelpFormatter, "allow_abbrev": False, **options})
        self.commands: dict[str, Parser] = {}
        self._group: _Commands | None = None

    def add_noun(self, name: str, summary: str) -> "Parser":
        """Add a command or a group of commands. `summary` has no full stop."""
        if self._group is None:
            self._group = self.add_subparsers(title="commands", metavar="COMMAND", required=True)
        added = self._group.add_parser(name, help=summary, description=f"{summary}.")
        self.commands[name] = added
        return added

    def add_verb(
        self, name: str, work: Command, summary: str, *examples: str, url: bool = False
    ) -> "Parser":
        """Add a command that prints a result. With `url`, it can work on a remote registry."""
        added = self.add_noun(name, summary)
        added.do(work, *examples)
        added.add_json()
        if url:
            added.add_remote()
        return added

    def do(self, work: Command, *examples: str) -> None:
        """Let this parser be a command that does `work` on the settings of a registry."""
        self.be(work, *examples)
        self.add_argument("--config", metavar="FILE", help="settings file (TOML)")
        self.add_argument("--data", metavar="DIR", help="data directory (default ./data)")

    def be(self, work: Command, *examples: str) -> None:
        """Let this parser be a command. The command lines in `examples` are shown in its help."""
        self.set_defaults(command=work)
        self.epilog = _EXAMPLES + "\n".join(f"  {each}" for each in examples)

    def explain(self, text: str) -> None:
        """Add sentences to the description."""
        self.description = f"{self.description} {text}"

    def add_json(self) -> None:
        self.add_argument("--json", action="store_true", help="print JSON")

    def add_remote(self, *, stdin: bool = True) -> None:
        """Add the options that locate and sign in to a remote registry.

        Without `stdin`, the command itself reads standard input, so the password to sign in with
        cannot be read from there.
        """
        remote = self.add_argument_group("remote registry")
        remote.add_argument(
            "--url", metavar="URL", help="address of a registry, instead of a local data directory"
        )
        remote.add_argument(
            "--user",
            metavar="NAME",
            dest="sign_in_as",
            help="user to sign in as, with the password in MOORAGE_PASSWORD or one that you type "
            "(default: sign in with the token in MOORAGE_TOKEN)",
        )
        remote.add_argument(
            "--ca-file", metavar="FILE", help="additional certificate authorities to trust (PEM)"
        )
        self.set_defaults(sign_in_stdin=False)
        if stdin:
            remote.add_argument(
                "--password-stdin",
                action="store_true",
                dest="sign_in_stdin",
                help="read the password to sign in with from standard input",
            )

    @property
    def arguments(self) -> list[argparse.Action]:
        """The arguments and options of this parser, with those of its groups."""
        return self._actions

    def require_known(self, words: Sequence[str]) -> None:
        """Exit with status 2 and name the nearest word if a command or option does not exist."""
        if self.commands:
            word = words[0] if words else "-"
            if word in self.commands:
                self.commands[word].require_known(words[1:])
            elif not word.startswith("-"):
                self.error(f"unknown command {word!r}; {_suggest(word, self.commands)}")
            return
        for word in words:
            if word == "--":
                return
            option = word.partition("=")[0]
            if option.startswith("--") and option not in self._option_string_actions:
                known = [each for each in self._option_string_actions if each.startswith("--")]
                self.error(f"unknown option {option!r}; {_suggest(option, known)}")


def _suggest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest of the known words, or all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"


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
        raise ConfigError(f"{option} must be a whole number above zero, not {text}")
    return count
