"""Passwords as they reach a command: typed on a terminal, or on a line of standard input. Never as
arguments, which others on the machine can read.
"""

import getpass
import sys

from registry.errors import InputInvalidError


def read_line() -> str:
    """The password on the first line of standard input; InputInvalidError for none."""
    try:
        password = sys.stdin.readline().rstrip("\r\n")
        password.encode()
    except UnicodeError:
        raise InputInvalidError("the password on standard input is not UTF-8") from None
    if not password:
        raise InputInvalidError("standard input has no password")
    return password


def ask(prompt: str, otherwise: str) -> str:
    """The password that is typed; InputInvalidError, with what else to do, without a terminal."""
    if not sys.stdin.isatty():
        raise InputInvalidError(f"there is no terminal to type a password on; {otherwise}")
    return getpass.getpass(f"{prompt}: ")


def read_new(name: str, *, from_stdin: bool) -> str:
    """A new password for a user, typed twice; InputInvalidError."""
    if from_stdin:
        return read_line()
    password = ask(f"New password of {name}", "use --password-stdin")
    if ask("Again", "") != password:
        raise InputInvalidError("the two are not the same")
    return password
