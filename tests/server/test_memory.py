"""Memory does not depend on the size of a blob."""

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.soak, pytest.mark.timeout(900)]

SIZE = int(os.environ.get("MOORAGE_SOAK", "1")) << 30
"""Bytes of the blob: 1 GiB, or 4 with MOORAGE_SOAK=4."""

PIECE = hashlib.shake_256(b"memory").digest(1 << 20)
MOST = 64 << 20


def pieces() -> Iterator[bytes]:
    for number in range(SIZE // len(PIECE)):
        yield number.to_bytes(8) + PIECE[8:]


def resident(server: Server) -> int:
    """The most memory that the server ever had resident, in bytes."""
    status = Path(f"/proc/{server.running.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


async def test_a_large_blob_moves_the_resident_set_by_little(tmp_path: Path) -> None:
    running = hashlib.sha256()
    for piece in pieces():
        running.update(piece)
    digest = f"sha256:{running.hexdigest()}"

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    with serving(Server(tmp_path / "data")) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as http:
            before = resident(server)
            location = (await http.post("/v2/large/blobs/uploads/")).headers["Location"]
            answer = await http.patch(location, content=body())
            assert answer.status_code == 202, answer.text
            assert answer.headers["Range"] == f"0-{SIZE - 1}"
            answer = await http.put(location, params={"digest": digest})
            assert answer.status_code == 201, answer.text
            pulled = hashlib.sha256()
            async with http.stream("GET", f"/v2/large/blobs/{digest}") as stream:
                async for piece in stream.aiter_raw(1 << 20):
                    pulled.update(piece)
            assert f"sha256:{pulled.hexdigest()}" == digest
            assert resident(server) - before < MOST
