"""`moorage completion`: completion of commands in a shell."""

import argparse
from collections.abc import Mapping

from registry.cli.kit import output
from registry.cli.kit.parsing import Parser

_SHELLS = ("bash", "zsh", "fish")


def declare(completion: Parser) -> None:
    """Declare the command."""
    completion.be(
        show,
        "moorage completion bash > ~/.local/share/bash-completion/completions/moorage",
        "moorage completion zsh > ~/.zfunc/_moorage",
        "moorage completion fish > ~/.config/fish/completions/moorage.fish",
    )
    completion.explain("The shell loads the script when it starts.")
    completion.add_argument("shell", choices=_SHELLS, help="the shell")


def show(args: argparse.Namespace) -> int:
    import shtab

    parser: Parser = args.build_parser()
    complete = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "TARGET": shtab.DIRECTORY}
    _complete_paths(parser, complete)
    output.write_script(shtab.complete(parser, args.shell))
    return 0


def _complete_paths(parser: Parser, complete: Mapping[str, object]) -> None:
    """Let the arguments that are paths complete to paths."""
    for argument in parser.arguments:
        if isinstance(argument.metavar, str) and argument.metavar in complete:
            argument.complete = complete[argument.metavar]  # type: ignore[attr-defined]
    for command in parser.commands.values():
        _complete_paths(command, complete)
