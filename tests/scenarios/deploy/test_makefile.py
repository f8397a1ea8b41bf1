"""`make` with a Python that is too old or has changed since the last run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.old_python import write_python
from tests.support.servers.server import ROOT

VERSION = ".".join(map(str, sys.version_info[:2]))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def make(checkout: Path, python: Path | str) -> subprocess.CompletedProcess[str]:
    """Create the virtual environment without installing packages in it."""
    return subprocess.run(
        ["make", ".venv/pyvenv.cfg", f"PYTHON={python}"],
        cwd=checkout,
        check=False,
        capture_output=True,
        text=True,
    )


def test_a_python_that_is_too_old_is_named_and_leaves_nothing(checkout: Path) -> None:
    old = write_python(checkout / "python3.9", (3, 9, 2))
    done = make(checkout, old)
    assert done.returncode != 0
    assert f"{old} is Python 3.9.2; Moorage needs Python 3.11 or newer" in done.stderr
    assert not (checkout / ".venv").exists()


def test_an_environment_that_no_longer_works_is_made_again(checkout: Path) -> None:
    environment = checkout / ".venv"
    (environment / "bin").mkdir(parents=True)
    write_python(environment / "bin" / "python", (3, 9, 2))
    (environment / "left").touch()
    done = make(checkout, sys.executable)
    assert done.returncode == 0, done.stderr
    assert not (environment / "left").exists()
    (environment / "kept").touch()
    assert make(checkout, sys.executable).returncode == 0
    # A wrong Python leaves a working environment unchanged.
    assert make(checkout, write_python(checkout / "python3.9", (3, 9, 2))).returncode != 0
    assert (environment / "kept").exists()
    # A system upgrade has the same effect: the packages belong to another Python version.
    shutil.rmtree(environment / "lib" / f"python{VERSION}" / "site-packages" / "pip")
    assert make(checkout, sys.executable).returncode == 0
    assert not (environment / "kept").exists()
