"""Deletion and garbage collection work on a full disk."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.disks import fill, small_disk
from tests.support.kit import Kit
from tests.support.servers.server import Server, serving
from tests.support.servers.workers import worker

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(240)]

SETTINGS = {
    "MOORAGE_STORAGE__MIN_FREE_SPACE": "0B",
    "MOORAGE_GC__GRACE_PERIOD": "1s",
    "MOORAGE_GC__INTERVAL": "200ms",
    # No job runs, so that the filler does not take the space that the reserve file gives up.
    "MOORAGE_JOBS__IN_SERVE": "false",
}
PATIENCE = 60.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
async def test_a_deleted_image_makes_room(tmp_path: Path, kind: str) -> None:
    with small_disk(tmp_path, "48M", kind) as disk:
        server = Server(disk / "data", 1, SETTINGS)
        reserve = server.data / "moorage.db-reserve"
        with serving(server):
            with worker(server.data, **SETTINGS):
                wait_until(reserve.exists)
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
                kit = Kit(http)
                kept, _ = await kit.push_image("kept", "latest")
                gone, _ = await kit.push_image("app", "latest", "x" * 100_000)
                filler = fill(disk)
                refused = await http.post("/v2/full/blobs/uploads/")
                assert refused.status_code == 507, refused.text
                answer = await http.delete(f"/v2/app/manifests/{gone}")
                assert answer.status_code == 202, answer.text
                assert not reserve.exists()
                with worker(server.data, **SETTINGS):
                    wait_until(lambda: len(list(server.data.glob("storage/blobs/*/*/*"))) == 3)
                    assert (await http.get(f"/v2/kept/manifests/{kept}")).status_code == 200
                    filler.unlink()
                    wait_until(reserve.exists)  # a job creates it again
                await kit.push_image("again", "latest")


async def test_without_the_spare_room_it_would_not(tmp_path: Path) -> None:
    """The control."""
    with (
        small_disk(tmp_path, "48M", "tmpfs") as disk,
        serving(Server(disk / "data", 1, SETTINGS)) as server,  # no job creates the reserve file
    ):
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            gone, _ = await Kit(http).push_image("app", "latest")
            fill(disk)
            answer = await http.delete(f"/v2/app/manifests/{gone}")
            assert answer.status_code == 507, answer.text
