"""All of deploy/: every named file exists, and no file contains a secret."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.scenarios.deploy.naming import list_unknown
from tests.support.servers.server import ROOT

FILES = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "deploy"],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
).stdout.split()
SECRET = re.compile(
    r"(?:password|secret(?:_key)?|access_?key|database__url)\"?[ ]*[=:][ ]*\"?(?P<value>[^\s\"$]+)",
    re.IGNORECASE,
)


@pytest.mark.parametrize("name", FILES)
def test_settings_named_are_settings(name: str) -> None:
    assert list_unknown((ROOT / name).read_text()) == set()


def test_a_setting_that_is_none_is_found() -> None:
    assert list_unknown("MOORAGE_HTTP__LISTEN MOORAGE_HTTP__DRAINS MOORAGE_IMAGE") == {
        "MOORAGE_HTTP__DRAINS"
    }


@pytest.mark.parametrize("name", FILES)
def test_no_secret_is_written_down(name: str) -> None:
    if name.endswith("prepare"):
        return  # The script generates the secrets.
    found = [match["value"] for match in SECRET.finditer((ROOT / name).read_text())]
    assert [v for v in found if not v.startswith("/run/secrets/")] == []


def test_the_images_are_of_this_version() -> None:
    [version] = re.findall(
        r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    named = [
        found
        for name in FILES
        for found in re.findall(
            r"(?:moorage:|newTag: )(\d+\.\d+\.\d+)", Path(ROOT / name).read_text()
        )
    ]
    assert named
    assert set(named) == {version}


def test_files_with_programs_can_be_run() -> None:
    programs = [p for p in map(Path, FILES) if (ROOT / p).read_bytes().startswith(b"#!")]
    assert programs
    assert [p for p in programs if not (ROOT / p).stat().st_mode & 0o111] == []


def test_nothing_secret_gets_into_the_image() -> None:
    """`docker compose build` sends the whole checkout, which may contain generated secrets."""
    assert "deploy" in (ROOT / ".dockerignore").read_text().splitlines()
