"""Passwords for commands, typed on a terminal or read from a line of standard input.

A password is never an argument, because other accounts of the machine can read arguments.
"""

import getpass
import sys

from registry.errors import InputInvalidError


def read_line() -> str:
    """Read a password from the first line of standard input.

    Raises InputInvalidError if there is none.
    """
    try:
        password = sys.stdin.readline().rstrip("\r\n")
        password.encode()
    except UnicodeError:
        raise InputInvalidError("the password on standard input is not UTF-8") from None
    if not password:
        raise InputInvalidError("no password on standard input: write it as the first line")
    return password


def ask(prompt: str, otherwise: str) -> str:
    """Ask for a password on the terminal.

    Raises InputInvalidError, with the alternative `otherwise`, if there is no terminal.
    """
    if not sys.stdin.isatty():
        raise InputInvalidError(f"no terminal to type a password on; {otherwise}")
    return getpass.getpass(f"{prompt}: ")


def read_new(name: str, *, from_stdin: bool) -> str:
    """Read a new password for a user, typed twice or from standard input.

    Raises InputInvalidError if there is no password or the two differ.
    """
    if from_stdin:
        return read_line()
    password = ask(f"New password of {name}", "use --password-stdin")
    if ask("Repeat the password", "") != password:
        raise InputInvalidError("the two passwords differ; try again")
    return password
