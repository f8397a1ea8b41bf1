"""Questions on a terminal, passwords, and what may be an argument."""

import contextlib
import os
import pty
from pathlib import Path

import httpx
import pytest

from registry.oci.media_types import OCI_INDEX
from tests.cli.moorage import LONG, at
from tests.support.kit import index_manifest
from tests.support.servers import launcher
from tests.support.servers.server import Server, serving

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("answer", "status"), [("", 1), ("n", 1), ("yes please", 1), ("y", 0), ("YES", 0)]
)
def test_a_removal_on_a_terminal_is_asked_for(data: Path, answer: str, status: int) -> None:
    here = at(data)
    here.run("user", "add", "ann", "--no-password")
    here.run("token", "add", "ann", "laptop")
    here.run("grant", "add", "ann", "team/**", "pull")
    shown = on_terminal(["user", "remove", "ann", "--data", str(data)], answer, status)
    assert "This removes the user ann with 1 token and 1 grant. Continue? [y/N]" in shown
    assert ("nothing was removed" in shown) == bool(status)
    names = [user["name"] for user in here.json("user", "list")["users"]]
    assert ("ann" in names) == bool(status)


def test_yes_is_not_asked_for(data: Path) -> None:
    at(data).run("user", "add", "ann", "--no-password")
    shown = on_terminal(["user", "remove", "ann", "--yes", "--data", str(data)], None, 0)
    assert shown == "Removed ann.\n"


def test_deleting_a_repository_on_a_terminal_is_asked_for(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data")) as server:
        base = f"{server.url}/v2/app"
        raw = index_manifest([])
        put = httpx.put(f"{base}/manifests/v1", content=raw, headers={"Content-Type": OCI_INDEX})
        assert put.status_code == 201
        command = ["repo", "delete", "app", "--data", str(server.data)]
        shown = on_terminal(command, "n", 1)
        assert f"This deletes app with 1 tag, 1 manifest and 0 blobs ({len(raw)}B)." in shown
        assert httpx.get(f"{base}/manifests/v1").status_code == 200
        on_terminal(command, "y", 0)
        assert httpx.get(f"{base}/manifests/v1").status_code == 404


def on_terminal(arguments: list[str], answer: str | None, status: int) -> str:
    """Run a command on a terminal, answer its question, and return its whole output."""
    ours, theirs = pty.openpty()
    with launcher.Launched(
        arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        while answer is not None and not shown.endswith(b"[y/N] "):
            shown += os.read(ours, 1024)
        if answer is not None:
            os.write(ours, answer.encode() + b"\n")
        with contextlib.suppress(OSError):  # the terminal closes when the command ends
            while piece := os.read(ours, 1024):
                shown += piece
        assert process.wait(100) == status, shown
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_a_password_is_typed_twice_and_not_shown(data: Path) -> None:
    for second, status in ((LONG, 0), ("something else", 1)):
        ours, theirs = pty.openpty()
        with launcher.Launched(
            ["user", "passwd", "root", "--data", str(data)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            shown = b""
            prompts = (b"New password of root: ", b"Repeat the password: ")
            for prompt, answer in zip(prompts, (LONG, second), strict=True):
                while not shown.endswith(prompt):
                    shown += os.read(ours, 1024)
                os.write(ours, answer.encode() + b"\n")
            assert process.wait(100) == status
        os.close(ours)
        assert LONG.encode() not in shown


def test_secrets_are_no_arguments() -> None:
    """All accounts of the machine can read the arguments of a process."""
    for command in (("user", "add"), ("user", "passwd"), ("robot", "add"), ("token", "add")):
        usage = launcher.run(*command, "--help").stdout
        assert "--password " not in usage
        assert "PASSWORD]" not in usage
