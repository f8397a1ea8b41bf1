"""deploy/airgap: the bundle installs without a network, and only if it is undamaged."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.old_python import write_python
from tests.support.servers.postgres import free_port
from tests.support.servers.server import ROOT, Server, serving

BUILD = ROOT / "deploy" / "airgap" / "build"
TIMEOUT = 240.0

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("airgap")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundle, without the container image, which would need a base image."""
    out = tmp_path_factory.mktemp("out")
    told = subprocess.run(
        [BUILD, "--no-image", "--out", out],
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    ).stdout
    [archive] = out.iterdir()
    assert told == f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n"
    return archive


@pytest.fixture
def unpacked(archive: Path, tmp_path: Path) -> Path:
    (tmp_path / "carried").mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path / "carried"], check=True)
    [folder] = (tmp_path / "carried").iterdir()
    return folder


def install(
    folder: Path, prefix: Path, python: str | Path = sys.executable
) -> subprocess.CompletedProcess[str]:
    """Run the installer without a network.

    As root, the installer has no network at all. Otherwise, pip gets the address of an index that
    does not exist.
    """
    alone = ["unshare", "--net"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*alone, folder / "install", "--prefix", prefix, "--python", python],
        env={**os.environ, "PIP_INDEX_URL": f"http://127.0.0.1:{free_port()}/"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


def test_it_installs_without_a_network_and_serves(unpacked: Path, tmp_path: Path) -> None:
    # An earlier version left its environment there, next to data.
    (tmp_path / "opt" / "bin").mkdir(parents=True)
    (tmp_path / "opt" / "pyvenv.cfg").touch()
    (tmp_path / "opt" / "data").touch()
    write_python(tmp_path / "opt" / "bin" / "python", (3, 9, 2))
    done = install(unpacked, tmp_path / "opt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "opt" / "data").exists()
    assert (unpacked / "docs" / "reference" / "configuration.md").is_file()
    assert (unpacked / "deploy" / "systemd" / "moorage.service").is_file()

    python = tmp_path / "opt" / "bin" / "python"
    with serving(Server(tmp_path / "data", python=python)) as server:
        data = b"a blob"
        with httpx.Client(base_url=server.url, timeout=30) as http:
            location = http.post("/v2/team/app/blobs/uploads/").headers["location"]
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            answer = http.put(location, params={"digest": digest}, content=data)
            assert answer.status_code == 201, answer.text
            assert http.get(f"/v2/team/app/blobs/{digest}").content == data
    both = "import psycopg, boto3, registry; print(registry.__file__)"
    shown = subprocess.run(
        [python, "-c", both], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert shown.stdout.startswith(str(tmp_path / "opt"))


def test_a_python_that_the_wheels_are_not_for_is_named(unpacked: Path, tmp_path: Path) -> None:
    other = write_python(tmp_path / "python3.99", (3, 99, 0))
    done = install(unpacked, tmp_path / "opt", other)
    assert done.returncode == 1
    here = ".".join(map(str, sys.version_info[:2]))
    assert f"{other} is Python 3.99, but the bundle has wheels for: {here}\n" in done.stderr
    assert not (tmp_path / "opt").exists()


def test_no_bundle_is_made_with_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = write_python(tmp_path / "python3.9", (3, 9, 2))
    for python, option in ((str(old), "3.13"), (sys.executable, "3.9")):
        done = subprocess.run(
            [BUILD, "--no-image", "--out", tmp_path / "out", "--python", option],
            env={**os.environ, "PYTHON": python},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        assert "3.11" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_was_changed_is_refused(unpacked: Path, tmp_path: Path) -> None:
    [wheel] = (unpacked / "wheels").glob("moorage-*.whl")
    with wheel.open("ab") as file:
        file.write(b"x")
    done = install(unpacked, tmp_path / "opt")
    assert done.returncode == 1
    assert "files are missing or changed" in done.stderr
    assert not (tmp_path / "opt").exists()


def test_a_wheel_that_was_added_is_refused(unpacked: Path, tmp_path: Path) -> None:
    (unpacked / "wheels" / "six-9.0-py3-none-any.whl").write_bytes(b"")
    done = install(unpacked, tmp_path / "opt")
    assert done.returncode == 1
    assert done.stderr.startswith("wheels/six-9.0-py3-none-any.whl is not part of the bundle")


def test_the_wheels_fit_older_systems_and_hold_no_secrets(unpacked: Path) -> None:
    for wheel in (unpacked / "wheels").iterdir():
        tags = re.findall(r"manylinux_2_(\d+)", wheel.name)
        assert "-any.whl" in wheel.name or min(map(int, tags or ["17"])) <= 28, wheel.name
    names = {path.name for path in unpacked.rglob("*")}
    assert "secret.env.example" in names
    assert not names & {"secrets", "tls", "secret.env"}
