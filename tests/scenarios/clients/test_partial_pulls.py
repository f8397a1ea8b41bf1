"""Partial pulls of zstd:chunked layers by podman, with many ranges in one request."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.scenarios.clients.client import Client, find_program, need_root
from tests.scenarios.clients.conftest import container_storage
from tests.scenarios.clients.images import tar_of
from tests.scenarios.clients.repository import Repository
from tests.support.servers.server import Server

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("clients")]

FILE = 200_000
FILES = 40
CHANGED = (3, 17, 18, 36)


@pytest.fixture
def podman(client_env: dict[str, str]) -> Iterator[Client]:
    """Yield podman with overlay storage, the only one that supports partial pulls."""
    need_root("podman")
    with container_storage(client_env) as env:
        settings = Path(env["CONTAINERS_STORAGE_CONF"])
        settings.write_text(
            settings.read_text().replace('"vfs"', '"overlay"')
            + '[storage.options]\npull_options = {enable_partial_images = "true"}\n'
        )
        yield Client(find_program("podman", "podman"), env)


def read_sent(registry: Server) -> int:
    """Return the number of response body bytes sent so far, including this response."""
    answer = httpx.get(f"{registry.url}/metrics", trust_env=False)
    match = re.search(r"^moorage_sent_bytes_total (\S+)$", answer.text, re.MULTILINE)
    assert match is not None
    return int(float(match[1])) + len(answer.content)


def test_a_pull_moves_what_is_missing(
    podman: Client, registry: Server, repository: Repository, tmp_path: Path
) -> None:
    files = {f"file-{n:02}": os.urandom(FILE) for n in range(FILES)}
    changed = files | {f"file-{n:02}": os.urandom(FILE) for n in CHANGED}
    images = (f"{repository.name}:1", f"{repository.name}:2")
    for image, content in zip(images, (files, changed), strict=True):
        archive = tmp_path / "layer.tar"
        archive.write_bytes(tar_of(content))
        podman("import", "--quiet", str(archive), image)
        podman("push", "--compression-format=zstd:chunked", image)
    podman("rmi", "--all", "--force")
    podman("pull", images[0])
    before = read_sent(registry)
    podman("pull", images[1])
    moved = read_sent(registry) - before
    missing = FILE * len(CHANGED)
    assert missing <= moved < 1.1 * missing
    podman("rmi", "--all", "--force")
