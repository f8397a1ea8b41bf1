"""Upload sessions with clients that stall, overtake each other, or disconnect."""

import asyncio
import contextlib
import os
import random
import re
import sqlite3
from pathlib import Path

import httpx
import pytest

from storage.digest import Digest
from tests.support.kit import Kit
from tests.support.pushing import blob_bytes
from tests.support.servers.raw import Wire
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

SOAK = int(os.environ.get("MOORAGE_SOAK", "1"))


async def test_a_stalled_patch_cannot_write_into_a_finished_blob(server: Server, kit: Kit) -> None:
    """Distribution 2.8.2 and 3.1.1 fail this test: after PUT gets 201, the bytes change."""
    data = blob_bytes("late", 50_000)
    digest = Digest.of(data)
    location = await kit.start_upload("late/writer")
    stalled = await Wire.open(server.port)
    await stalled.send_head("PATCH", location, Content_Length=1_000)
    await stalled.send(b"x" * 10)
    await asyncio.sleep(0.3)  # enough time for the server to claim the session
    answer = await kit.http.put(location, params={"digest": str(digest)}, content=data)
    assert answer.status_code in {409, 416}, answer.text
    with contextlib.suppress(ConnectionError):
        await stalled.send(b"y" * 990)
        await stalled.read()
    await stalled.close()
    assert await kit.push_blob("late/writer", data) == digest
    for path in (server.data / "storage").glob("blobs/*/*/*"):
        assert Digest.of(path.read_bytes()).hex == path.name.split(".")[0]


async def test_of_two_patches_at_once_one_wins(kit: Kit) -> None:
    for _ in range(10):
        location = await kit.start_upload("two/patches")
        first, second = await asyncio.gather(
            *(kit.http.patch(location, content=blob_bytes(who, 300_000)) for who in ("a", "b"))
        )
        # Serial execution is also valid: a chunk without Content-Range is appended.
        statuses = sorted((first.status_code, second.status_code))
        assert statuses in ([202, 202], [202, 409]), statuses
        length = 600_000 if statuses == [202, 202] else 300_000
        status = await kit.http.get(location)
        assert status.headers["Range"] == f"0-{length - 1}"


async def test_of_two_patches_from_the_same_offset_one_wins(kit: Kit) -> None:
    for _ in range(10):
        location = await kit.start_upload("two/offsets")
        answers = await asyncio.gather(
            *(
                kit.http.patch(
                    location,
                    content=blob_bytes(who, 300_000),
                    headers={"Content-Range": "0-299999"},
                )
                for who in ("a", "b")
            )
        )
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses in ([202, 409], [202, 416]), statuses


async def test_a_connection_that_sends_nothing_frees_its_session(tmp_path: Path) -> None:
    settings = {"MOORAGE_HTTP__BODY_IDLE_TIMEOUT": "300ms"}
    with serving(Server(tmp_path / "data", settings=settings)) as server:
        silent = await Wire.open(server.port)
        await silent.send_head("POST", "/v2/half/dead/blobs/uploads/", Content_Length=0)
        location = (await silent.read()).headers["location"]
        await silent.send_head("PATCH", location, Content_Length=100)
        await silent.send(b"ten bytes.")
        answer = await silent.read()
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        other = await Wire.open(server.port)
        await other.send_head("PATCH", location, Content_Length=5, Content_Range="10-14")
        await other.send(b"hello")
        answer = await other.read()
        assert (answer.status, answer.headers["range"]) == (202, "0-14")
        await silent.close()
        await other.close()


def count_descriptors(server: Server) -> int:
    """Return the number of open connections, staged files and blobs.

    Files of the database are not counted, because its connection pools fill up.
    """
    count = 0
    for pid in server.worker_pids():
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                target = str(link.readlink())
                count += "/storage/" in target or target.startswith("socket:")
    return count


def count_left(server: Server) -> tuple[int, ...]:
    """Return the numbers of sessions, pending deletions, leases and staged files."""
    connection = sqlite3.connect(server.data / "moorage.db")
    counts = [
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("uploads", "pending_deletions", "leases")
    ]
    connection.close()
    return (*counts, len(list((server.data / "storage" / "staging").iterdir())))


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_thousand_aborted_uploads_leak_nothing(tmp_path: Path, workers: int) -> None:
    settings = {"MOORAGE_STORAGE__UPLOAD_EXPIRY": "2s", "MOORAGE_LOG__LEVEL": "warning"}
    chance = random.Random(workers)
    data = blob_bytes("abort", 300_000)
    with serving(Server(tmp_path / "data", workers, settings)) as server:

        async def abort_one(path: str) -> None:
            wire = await Wire.open(server.port)
            await wire.send_head("POST", path, Content_Length=0)
            location = (await wire.read()).headers["location"]
            await wire.send_head("PATCH", location, Content_Length=len(data))
            cut = chance.randrange(len(data))
            await wire.send(data[:cut])
            if chance.random() < 0.5:
                wire.abort()
            else:
                await wire.close()

        await abort_one("/v2/abort/warm/blobs/uploads/")
        before = count_descriptors(server)
        for _ in range(100 * SOAK):
            await asyncio.gather(*(abort_one(f"/v2/abort/{i}/blobs/uploads/") for i in range(10)))
        for _ in range(300):
            await asyncio.sleep(0.1)
            if count_left(server) == (0, 0, 0, 0) and count_descriptors(server) <= before:
                break
        assert count_left(server) == (0, 0, 0, 0)
        assert count_descriptors(server) <= before


async def test_a_client_that_leaves_a_pull_lets_go_of_the_blob(tmp_path: Path) -> None:
    size = 64 << 20
    with serving(Server(tmp_path / "data")) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            digest = await Kit(http).push_blob("left", bytes(size))
            before = count_descriptors(server)
            for _ in range(20):
                wire = await Wire.open(server.port)
                await wire.send_head("GET", f"/v2/left/blobs/{digest}")
                await wire.reader.readexactly(1000)
                wire.abort()
            for _ in range(100):
                if count_descriptors(server) <= before:
                    break
                await asyncio.sleep(0.05)
            assert count_descriptors(server) <= before
            metrics = (await http.get("/metrics")).text
        [sent] = re.findall(r"^moorage_sent_bytes_total (\S+)$", metrics, re.MULTILINE)
        assert float(sent) < 20 * size / 4  # it stopped reading after the client was gone


async def patch_on(kit: Kit, location: str, data: bytes, length: int) -> int:
    """Send `length` bytes from the offset of the server with retries; return the new offset."""
    for _ in range(500):
        status = await kit.http.get(location)
        last = int(status.headers["Range"].removeprefix("0-"))
        offset = last + 1 if last else 0
        chunk = data[offset : offset + length]
        answer = await kit.http.patch(
            location,
            content=chunk,
            headers={"Content-Range": f"{offset}-{offset + len(chunk) - 1}"},
        )
        if answer.status_code == 202:
            return offset + len(chunk)
        # The server is still processing the last bytes of the cut request.
        assert answer.status_code in {409, 416}, answer.text
        await asyncio.sleep(0.01)
    raise AssertionError("the session was not freed")


async def test_a_cut_upload_goes_on_where_the_server_says(server: Server, kit: Kit) -> None:
    data = blob_bytes("resume", 3_000_000)
    location = await kit.start_upload("cut/upload")
    offset = await patch_on(kit, location, data, 1000)
    for cut in (1, 65_536, 700_000, 1_100_000):
        rest = data[offset:]
        wire = await Wire.open(server.port)
        await wire.send_head(
            "PATCH", location, Content_Length=len(rest), Content_Range=f"{offset}-{len(data) - 1}"
        )
        await wire.send(rest[:cut])
        await wire.close()
        reached = await patch_on(kit, location, data, 1000)
        assert offset < reached <= offset + cut + 1000
        offset = reached
    await patch_on(kit, location, data, len(data))
    digest = Digest.of(data)
    answer = await kit.http.put(location, params={"digest": str(digest)})
    assert answer.status_code == 201, answer.text
    assert (await kit.http.get(f"/v2/cut/upload/blobs/{digest}")).content == data
