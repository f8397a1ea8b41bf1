"""The wheel is complete and works from an empty directory."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.servers.server import ROOT


@pytest.mark.timeout(300)
def test_an_installed_wheel_serves_from_an_empty_directory(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT],
        check=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def python(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=empty,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    where = python("-c", "import registry, storage; print(registry.__file__, storage.__file__)")
    assert where.count(str(site)) == 2
    assert "upgraded to schema" in python("-m", "registry.cli.main", "db", "upgrade")
    assert "usable by this version" in python("-m", "registry.cli.main", "db", "status")
    assert sorted(p.name for p in empty.iterdir()) == ["data"]
