"""Fixtures of fault tests: they need a real server, and some need root."""

import os
from pathlib import Path

import pytest

SOAK = int(os.environ.get("MOORAGE_SOAK", "1"))
"""Factor for the length of the fault tests."""


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    """Return a folder for a `sitecustomize.py` that the server loads."""
    folder = tmp_path / "patches"
    folder.mkdir()
    return folder
