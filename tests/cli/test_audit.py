"""`moorage audit`, run while a server runs."""

import contextlib
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from registry.oci.media_types import OCI_INDEX
from tests.cli.moorage import PASSWORD, Moorage, at
from tests.support.kit import index_manifest
from tests.support.servers.launcher import Launched
from tests.support.servers.server import Server, add_admin, serving

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("audit") / "data"
    add_admin(data, "root", PASSWORD)
    with serving(Server(data)) as server:
        push(server, "team/app:v1")
        yield server


def push(server: Server, image: str) -> None:
    name, _, tag = image.partition(":")
    with httpx.Client(auth=("root", PASSWORD)) as http:
        pushed = http.put(
            f"{server.url}/v2/{name}/manifests/{tag}",
            content=index_manifest([]),
            headers={"Content-Type": OCI_INDEX},
        )
        assert pushed.status_code == 201, pushed.text


def test_pushes_and_deletions_are_listed_for_people(server: Server) -> None:
    near = at(server.data)
    near.run("tag", "delete", "team/app:v1")
    listed = ("audit", "list", "--event", "tag.*", "--repository", "team/app")
    lines = near.run(*listed).stdout.splitlines()
    assert lines[0].split() == ["AT", "BY", "FROM", "EVENT", "TARGET", "DETAIL"]
    pushed, deleted = (line.split("\t") for line in lines[1:])
    assert pushed[1:5] == ["root", "-", "tag.set", "team/app:v1"]
    assert deleted[1:5] == ["operator", "-", "tag.delete", "team/app:v1"]
    # The time has seconds, and the digest is shortened but still distinct.
    assert len(pushed[0]) == len("2026-11-23 19:12:00Z")
    assert len(pushed[-1]) == len("digest=sha256:") + 12
    # Printed times are valid arguments.
    since = pushed[0]
    assert near.json("audit", "list", "--since", since, "--event", "tag.set")["events"]
    assert near.json("audit", "list", "--actor", "nobody")["events"] == []
    some = near.run("audit", "list", "--limit", "1")
    assert len(some.stdout.splitlines()) == 2
    assert "the newest 1" in some.stderr
    far = Moorage(
        server.data.parent, ["--url", server.url, "--user", "root"], {"MOORAGE_PASSWORD": PASSWORD}
    )
    assert far.run(*listed).stdout.splitlines() == lines


def test_what_is_no_time_and_no_count_is_refused(server: Server) -> None:
    near = at(server.data)
    assert "invalid time '1'" in near.fails("audit", "list", "--since", "1")
    assert "whole number above zero" in near.fails("audit", "list", "--limit", "0")
    assert "unknown event 'tag.moved'" in near.fails("audit", "list", "--event", "tag.moved")


def test_events_are_followed_as_they_come(server: Server) -> None:
    # Use another repository, because the test above deletes the tag at any time.
    push(server, "team/followed:v1")
    where = ["--repository", "team/followed", "--data", str(server.data)]
    with Launched(
        ["audit", "list", "--follow", "--event", "tag.*", *where],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        with contextlib.ExitStack() as stack:
            stack.callback(process.terminate)
            assert "team/followed:v1" in process.stdout.readline()
            for tag in ("v2", "v3"):
                push(server, f"team/followed:{tag}")
                assert f"team/followed:{tag}" in process.stdout.readline()
