"""Skips of tests that require a program, a server or a privilege that is missing."""

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test on a developer's machine. Fail in CI, which must have what tests require.

    `what` is a program, a server or a privilege.
    """
    if os.environ.get("CI") == "true":
        pytest.fail(f"requires {what}, which CI must have")
    pytest.skip(f"requires {what}")


def require_root_and(*programs: str) -> None:
    """Skip, or fail in CI, unless the test is root and has the programs."""
    if os.geteuid() != 0:
        missing("root")
    for program in programs:
        if shutil.which(program) is None:
            missing(program)
