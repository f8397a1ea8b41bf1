"""Commands with `--url`: ways to sign in, and addresses that are not of a registry."""

import os
from pathlib import Path

import httpx
import pytest

from registry.oci.media_types import OCI_INDEX
from tests.cli.moorage import LONG, PASSWORD, Moorage, at
from tests.support.kit import index_manifest
from tests.support.servers.server import Server

pytestmark = pytest.mark.timeout(120)


def test_ways_to_sign_in_from_afar(data: Path, server: Server) -> None:
    far = ["--url", server.url]
    assert "--user NAME" in Moorage(data.parent, far).fails("user", "list")
    root = [*far, "--user", "root"]
    assert "no terminal" in Moorage(data.parent, root).fails("user", "list")
    stdin = Moorage(data.parent, [*root, "--password-stdin"])
    assert stdin.json("user", "list", typed=PASSWORD + "\n")["users"]
    assert "wrong" in stdin.fails("user", "list", typed="something else\n")
    secret = at(data).run("token", "add", "root", "laptop").stdout.strip()
    token = Moorage(data.parent, far, {"MOORAGE_TOKEN": secret})
    assert token.json("user", "list")["users"]
    bounded = at(data).run("token", "add", "root", "small", "--scope", "**:admin").stdout.strip()
    small = Moorage(data.parent, far, {"MOORAGE_TOKEN": bounded})
    refused = small.fails("user", "list")
    assert "requires an admin account; use the password or a token without scopes" in refused


def test_a_tag_is_restored_from_afar(data: Path, server: Server) -> None:
    where = ["--url", server.url, "--user", "root"]
    far = Moorage(data.parent, where, {"MOORAGE_PASSWORD": PASSWORD})
    path = f"{server.url}/v2/app/manifests/latest"
    with httpx.Client(auth=("root", PASSWORD)) as http:
        for raw in (index_manifest([]), index_manifest([]) + b" "):
            pushed = http.put(path, content=raw, headers={"Content-Type": OCI_INDEX})
            assert pushed.status_code == 201, pushed.text
    new, old = (line["digest"] for line in far.json("tag", "history", "app:latest")["history"])
    assert "did not exist" in far.fails("tag", "restore", "app:latest", "--at", "1h")
    assert far.run("tag", "restore", "app:latest").stdout == f"app:latest points at {old}\n"
    assert far.json("tag", "restore", "app:latest", "--digest", new)["digest"] == new
    assert "no tag v1 in the history of app" in far.fails("tag", "history", "app:v1")


def test_her_own_password_from_afar(data: Path, server: Server) -> None:
    at(data).run("user", "add", "alice", "--password-stdin", typed=LONG + "\n")
    where = ["--url", server.url, "--user", "alice"]
    alice = Moorage(data.parent, where, {"MOORAGE_PASSWORD": LONG})
    assert "requires the account root or an admin account" in alice.fails(
        "user", "passwd", "root", "--password-stdin", typed="x" * 9
    )
    alice.run("user", "passwd", "alice", "--password-stdin", typed="another password\n")
    assert "wrong" in alice.fails("token", "list", "alice")
    again = Moorage(data.parent, where, {"MOORAGE_PASSWORD": "another password"})
    assert again.json("token", "list", "alice")["tokens"] == []


def test_arguments_that_are_no_text(data: Path) -> None:
    strange = os.fsdecode(b"\xff")
    for command in (("audit", "list", "--actor"), ("user", "disable"), ("robot", "rotate")):
        assert at(data).fails(*command, strange) == "moorage: an argument is not UTF-8\n"


def test_places_that_are_no_registry(data: Path) -> None:
    for url, said in (
        ("registry.example.org", "address of a registry"),
        ("ftp://127.0.0.1", "address of a registry"),
        ("http://me:secret@127.0.0.1", "address of a registry"),
        ("http://127.0.0.1:1", "cannot reach"),
    ):
        far = Moorage(data.parent, ["--url", url], {"MOORAGE_TOKEN": "x"})
        answer = far.fails("user", "list")
        assert said in answer
        assert "secret" not in answer
