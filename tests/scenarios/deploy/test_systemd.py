"""deploy/systemd: the unit is valid for systemd and fits Moorage."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from registry.http.settings import HttpSettings
from tests.scenarios.deploy.naming import DEPLOY
from tests.support.missing import missing

UNIT = DEPLOY / "systemd" / "moorage.service"
INSTALLED = "/opt/moorage/bin/moorage"
EXPOSED = 15
"""Limit of systemd's exposure level of a unit in tenths, from 0 (safe) to 100 (unsafe)."""


@pytest.fixture(scope="module")
def analyze() -> str:
    return shutil.which("systemd-analyze") or missing("systemd (Debian: apt-get install systemd)")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def values_of(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def verify(analyze: str, text: str, folder: Path) -> str:
    """Return the complaints of systemd about a unit with that text, with the program replaced."""
    unit = folder / "moorage.service"
    unit.write_text(text.replace(INSTALLED, "/bin/true"))
    judged = run(analyze, "verify", "--man=no", str(unit))
    said = [line for line in judged.stderr.splitlines() if "moorage.service" in line]
    return "\n".join(said)


def test_systemd_takes_the_unit(analyze: str, tmp_path: Path) -> None:
    assert verify(analyze, UNIT.read_text(), tmp_path) == ""


def test_a_misspelt_line_is_found(analyze: str, tmp_path: Path) -> None:
    wrong = UNIT.read_text().replace("ProtectSystem=strict", "ProtectSystems=strict")
    assert "ProtectSystems" in verify(analyze, wrong, tmp_path)


def test_little_is_left_to_reach(analyze: str) -> None:
    options = ["--offline=true", "--no-pager", f"--threshold={EXPOSED}"]
    judged = run(analyze, "security", *options, str(UNIT))
    assert judged.returncode == 0, judged.stdout[-2000:]


def test_it_is_given_more_time_than_it_drains() -> None:
    [stop] = values_of("TimeoutStopSec")
    assert int(stop.removesuffix("s")) > HttpSettings().drain_timeout + 20
    assert values_of("Restart") == ["on-failure"]


def test_the_data_folder_is_the_units() -> None:
    [start] = values_of("ExecStart")
    [state] = values_of("StateDirectory")
    assert start == f"{INSTALLED} serve --data /var/lib/{state}"
    [user] = values_of("User")
    account = (UNIT.parent / "moorage.sysusers").read_text()
    assert re.search(rf'^u {user} - ".+" /var/lib/{state}$', account, re.MULTILINE)


def test_the_credential_that_is_loaded_is_the_one_that_is_read() -> None:
    [loaded] = values_of("LoadCredential")
    name, _, source = loaded.partition(":")
    assert values_of("Environment") == [f"MOORAGE_CONFIG=%d/{name}"]
    assert source == "/etc/moorage/moorage.toml"


def test_threads_may_lower_their_priority() -> None:
    """`registry.auth.credentials.passwords` lowers it; a forbidden call would kill the worker."""
    filters = values_of("SystemCallFilter")
    assert filters
    assert not any("~" in each and "@resources" in each for each in filters)
