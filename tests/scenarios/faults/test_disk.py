"""Tests of a disk that is full, that fails to sync, or that is not mounted."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from storage.digest import Digest
from tests.support.disks import small_disk
from tests.support.kit import Kit, codes
from tests.support.pushing import Ledger, blob_bytes, push_image, verify
from tests.support.servers import server as server_support
from tests.support.servers.server import Server, serving
from tests.support.stored_files import list_broken, list_unowned

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(240)]


@contextlib.asynccontextmanager
async def client(server: Server) -> AsyncIterator[Kit]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        yield Kit(http)


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
@pytest.mark.parametrize("reserve", ["4MiB", "0B"])
async def test_a_full_disk(tmp_path: Path, kind: str, reserve: str) -> None:
    """The answer is 507 with an error body. Pulls, deletions and recovery need no restart."""
    settings = {"MOORAGE_STORAGE__MIN_FREE_SPACE": reserve, "MOORAGE_STORAGE__UPLOAD_EXPIRY": "2s"}
    with (
        small_disk(tmp_path, "32M", kind) as disk,
        serving(Server(disk / "data", 1, settings)) as s,
    ):
        async with client(s) as kit:
            ledger = Ledger()
            await push_image(kit, ledger, "kept", "v1", 200_000)
            fill = disk / "fill"
            # Unbuffered: otherwise closing the file repeats the failed write, and fails.
            with fill.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 65536)
            with fill.open("r+b") as file:
                file.truncate(fill.stat().st_size - 200_000)
            refused = await kit.http.post(
                "/v2/full/blobs/uploads/",
                params={"digest": "sha256:" + "0" * 64},
                content=blob_bytes("full", 8_000_000),
            )
            assert refused.status_code == 507, refused.text
            assert codes(refused) == ["UNAVAILABLE"]
            assert refused.headers["Retry-After"]
            assert await verify(s.url, ledger.pushes) == []
            assert (await kit.http.get("/v2/_catalog")).json() == {"repositories": ["kept"]}
            assert (await kit.http.get("/readyz")).status_code == 200
            if reserve != "0B":  # the reserve exists so that deletions still work
                answer = await kit.http.delete("/v2/kept/manifests/v1")
                assert answer.status_code == 202, answer.text
                ledger.pushes.clear()
            fill.unlink()
            await push_image(kit, ledger, "again", "v1", 3_000_000)
            assert await verify(s.url, ledger.pushes) == []
            for _ in range(100):
                if not list(s.data.glob("storage/staging/*")):
                    break
                await asyncio.sleep(0.1)
        assert s.stop() == 0
        assert list_broken(s.data) == []
        assert list_unowned(s.data) == []
        assert not list(s.data.glob("storage/staging/*"))


@pytest.mark.parametrize("offset", range(0, 1_600_000, 200_000))
async def test_wherever_the_disk_gets_full(tmp_path: Path, offset: int) -> None:
    """Leave less space each time, so that the blob, the database or its log fills the disk."""
    settings = {"MOORAGE_STORAGE__MIN_FREE_SPACE": "0B", "MOORAGE_LOG__LEVEL": "error"}
    with small_disk(tmp_path, "12M", "tmpfs") as disk:
        with serving(Server(disk / "data", 1, settings)) as server:
            async with client(server) as kit:
                ledger = Ledger()
                await push_image(kit, ledger, "kept", "v1", 1000)
                fill = disk / "fill"
                # Closing fails too, because of the data that could not be written.
                with contextlib.suppress(OSError), fill.open("wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * 65536)
                with fill.open("r+b") as file:
                    file.truncate(fill.stat().st_size - offset)
                for number in range(30):
                    data = blob_bytes(f"little{number}", 90_000)
                    answer = await kit.http.post(
                        "/v2/full/blobs/uploads/",
                        params={"digest": "sha256:" + "0" * 64},
                        content=data,
                    )
                    # Either the disk is full, or there was space and the digest is wrong.
                    assert answer.status_code in {507, 503, 400}, answer.text
                    assert codes(answer)[0] in {"UNAVAILABLE", "DIGEST_INVALID"}
                assert await verify(server.url, ledger.pushes) == []
                fill.unlink()
                await push_image(kit, ledger, "again", "v1", 200_000)
                assert await verify(server.url, ledger.pushes) == []
        assert list_broken(disk / "data") == []


FAILING = """
import errno, os
from pathlib import Path
FLAG = Path({flag!r})
import storage.local.driver
for name in {names!r}:
    def broken(*args, _real=getattr(os, name), **kwargs):
        if FLAG.exists():
            raise OSError(errno.EIO, "injected")
        return _real(*args, **kwargs)
    setattr(os, name, broken)
"""


@pytest.mark.parametrize("name", ["fsync", "pwrite", "rename", "fchmod", "ftruncate"])
async def test_a_failing_call_is_a_503_and_over_when_it_works_again(
    tmp_path: Path, patches: Path, name: str
) -> None:
    flag = tmp_path / "broken"
    (patches / "sitecustomize.py").write_text(FAILING.format(flag=str(flag), names=[name]))
    settings = {"MOORAGE_STORAGE__UPLOAD_EXPIRY": "1s"}
    with serving(Server(tmp_path / "data", 1, settings, patches)) as server:
        async with client(server) as kit:
            ledger = Ledger()
            await push_image(kit, ledger, "kept", "v1", 100_000)
            data = blob_bytes("failing", 100_000)
            flag.touch()
            if name == "ftruncate":  # called when a rejected chunk is rolled back
                location = await kit.start_upload("failing")
                headers = {"Content-Range": "0-5"}

                async def longer() -> AsyncIterator[bytes]:
                    yield data

                answer = await kit.http.patch(location, content=longer(), headers=headers)
            else:
                answer = await kit.http.post(
                    "/v2/failing/blobs/uploads/",
                    params={"digest": str(Digest.of(data))},
                    content=data,
                )
            assert answer.status_code == 503, answer.text
            assert codes(answer) == ["UNAVAILABLE"]
            assert answer.headers["Retry-After"]
            assert "/" not in answer.json()["errors"][0]["message"]
            assert await verify(server.url, ledger.pushes) == []
            assert (await kit.http.get("/v2/_catalog")).json() == {"repositories": ["kept"]}
            metrics = (await kit.http.get("/metrics")).text
            assert 'moorage_storage_errors_total{kind="unavailable"} 1.0' in metrics
            flag.unlink()
            await kit.push_blob("failing", data)
            for _ in range(150):
                if not list(server.data.glob("storage/staging/*")):
                    break
                await asyncio.sleep(0.1)
    assert not list((tmp_path / "data").glob("storage/staging/*"))
    assert list_broken(tmp_path / "data") == []


async def test_a_disk_that_is_not_mounted_is_no_lost_blob(tmp_path: Path) -> None:
    """The answer is 503, not 404: after a 404 the client pushes again, onto the wrong disk."""
    with serving(Server(tmp_path / "data")) as server:
        async with client(server) as kit:
            ledger = Ledger()
            await push_image(kit, ledger, "kept", "v1", 1000)
            storage, away = server.data / "storage", server.data / "away"
            storage.rename(away)
            blob = f"/v2/kept/blobs/{ledger.pushes[0].blobs[0]}"
            assert (await kit.http.get(blob)).status_code == 503
            assert (await kit.http.head(blob)).status_code == 503
            assert (await kit.http.get("/readyz")).status_code == 503
            away.rename(storage)
            assert await verify(server.url, ledger.pushes) == []


async def test_a_start_without_the_disk_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that has blobs must not take an empty mount point for a new store."""
    server = Server(tmp_path / "data")
    with serving(server):
        async with client(server) as kit:
            ledger = Ledger()
            await push_image(kit, ledger, "kept", "v1", 1000)
    storage, away = server.data / "storage", server.data / "away"
    storage.rename(away)
    storage.mkdir()
    monkeypatch.setattr(server_support, "START", 4)
    with pytest.raises(AssertionError, match="is its disk mounted"):
        server.start()
    monkeypatch.undo()
    server.kill()
    assert list(storage.iterdir()) == []
    storage.rmdir()
    away.rename(storage)
    with serving(server):
        assert await verify(server.url, ledger.pushes) == []


async def pull_while_it_is_cut(kit: Kit, digest: Digest, path: Path) -> None:
    """Pull the blob. After its first bytes, cut off the second half of its file."""
    async with kit.http.stream("GET", f"/v2/cut/blobs/{digest}") as stream:
        async for _ in stream.aiter_raw():
            size = path.stat().st_size
            assert stream.headers["Content-Length"] == str(CUT_SIZE)
            if size == CUT_SIZE:
                path.chmod(0o600)
                os.truncate(path, size // 2)


CUT_SIZE = 40 << 20


async def test_a_blob_truncated_while_it_is_read_cuts_the_connection(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data")) as server:
        async with client(server) as kit:
            data = blob_bytes("cut", CUT_SIZE)
            digest = await kit.push_blob("cut", data)
            [path] = (server.data / "storage").glob(f"blobs/sha256/*/{digest.hex}.*")
            with pytest.raises(httpx.RemoteProtocolError):
                await pull_while_it_is_cut(kit, digest, path)
            assert (await kit.http.head(f"/v2/cut/blobs/{digest}")).status_code == 404
            assert "moorage_blobs_damaged 1.0" in (await kit.http.get("/metrics")).text
            await kit.push_blob("cut", data)
            answer = await kit.http.get(f"/v2/cut/blobs/{digest}")
            assert (answer.status_code, answer.content == data) == (200, True)
            assert "moorage_blobs_damaged 0.0" in (await kit.http.get("/metrics")).text
