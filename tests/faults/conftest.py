"""Faults need a real server, and some of them root."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.missing import missing

SOAK = int(os.environ.get("MOORAGE_SOAK", "1"))
"""Multiplies how long the fault tests look."""


def require_root_and(*programs: str) -> None:
    """Skip, or fail in CI, where a test cannot mount."""
    if os.geteuid() != 0:
        missing("root")
    for program in programs:
        if shutil.which(program) is None:
            missing(program)


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    """A folder for a `sitecustomize.py` that the server loads."""
    folder = tmp_path / "patches"
    folder.mkdir()
    return folder
