"""Skips of tests whose client or server is not installed."""

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test on a developer's machine. Fail in CI, where everything must be installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI must have it")
    pytest.skip(f"{what} is not installed")


def require_root_and(*programs: str) -> None:
    """Skip, or fail in CI, unless the test is root and has the programs."""
    if os.geteuid() != 0:
        missing("root")
    for program in programs:
        if shutil.which(program) is None:
            missing(program)
