"""Tests of upload sessions whose requests go to both replicas in turn."""

import asyncio
from collections.abc import AsyncIterator
from itertools import cycle

import pytest

from storage.digest import Digest
from tests.support.kit import Kit, codes, require_created, require_session
from tests.support.pushing import blob_bytes
from tests.support.servers.replicas import Replicas

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("replicas")]

NAME = "team/app"
PART = 5 << 20

SIZES = {
    "tail only": (300, 100),
    "ends with a part": (2 * PART, PART),
    "less than parts": (2 * PART + 700_001, 3_000_001),
    "more than a part": (3 * PART + 17, PART + 1_000_000),
}
SIZED = pytest.mark.parametrize(("size", "step"), SIZES.values(), ids=SIZES)


def spans(size: int, step: int) -> list[tuple[int, int]]:
    return [(at, min(at + step, size)) for at in range(0, size, step)]


def ranged(start: int, end: int) -> dict[str, str]:
    return {"Content-Range": f"{start}-{end - 1}"}


async def require_served(data: bytes, *kits: Kit) -> None:
    digest = Digest.of(data)
    for kit in kits:
        head = await kit.http.head(f"/v2/{NAME}/blobs/{digest}")
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(data)))
        answer = await kit.http.get(f"/v2/{NAME}/blobs/{digest}")
        assert (answer.status_code, answer.content == data) == (200, True)
        middle = await kit.http.get(
            f"/v2/{NAME}/blobs/{digest}", headers={"Range": f"bytes={len(data) // 2}-"}
        )
        assert (middle.status_code, middle.content) == (206, data[len(data) // 2 :])


@SIZED
async def test_they_alternate(a: Kit, b: Kit, size: int, step: int) -> None:
    data = blob_bytes(f"alternate {size}", size)
    turns = cycle([(a, b), (b, a)])
    here, there = next(turns)
    location = await here.start_upload(NAME)
    for start, end in spans(size, step):
        here, there = next(turns)
        require_session(await there.http.get(location), 204, NAME, start)
        answer = await here.http.patch(
            location, content=data[start:end], headers=ranged(start, end)
        )
        require_session(answer, 202, NAME, end)
        require_session(await there.http.get(location), 204, NAME, end)
    here, there = next(turns)
    answer = await here.http.put(location, params={"digest": str(Digest.of(data))})
    require_created(answer, NAME, Digest.of(data))
    for kit in (there, here):
        assert (await kit.http.get(location)).status_code == 404
    await require_served(data, here, there)


@SIZED
async def test_the_last_chunk_comes_with_the_put(a: Kit, b: Kit, size: int, step: int) -> None:
    data = blob_bytes(f"with the put {size}", size)
    turns = cycle([b, a])
    location = await a.start_upload(NAME)
    *chunks, (last, _) = spans(size, step)
    for start, end in chunks:
        answer = await next(turns).http.patch(location, content=data[start:end])
        require_session(answer, 202, NAME, end)
    answer = await next(turns).http.put(
        location, params={"digest": str(Digest.of(data))}, content=data[last:]
    )
    require_created(answer, NAME, Digest.of(data))
    await require_served(data, a, b)


@SIZED
async def test_out_of_order_and_repeated_chunks(a: Kit, b: Kit, size: int, step: int) -> None:
    """The replica that did not take the previous chunk refuses each of them, without harm."""
    data = blob_bytes(f"disorder {size}", size)
    turns = cycle([(a, b), (b, a)])
    location = await a.start_upload(NAME)
    for start, end in spans(size, step):
        here, there = next(turns)
        ahead = await here.http.patch(
            location, content=data[end : end + 10], headers=ranged(start + 1, start + 11)
        )
        require_session(ahead, 416, NAME, start)
        answer = await here.http.patch(
            location, content=data[start:end], headers=ranged(start, end)
        )
        require_session(answer, 202, NAME, end)
        again = await there.http.patch(
            location, content=data[start:end], headers=ranged(start, end)
        )
        require_session(again, 416, NAME, end)
        assert codes(again) == ["BLOB_UPLOAD_INVALID"]
    late = await a.http.put(
        location,
        params={"digest": str(Digest.of(data))},
        content=data[-5:],
        headers=ranged(size - 5, size),
    )
    require_session(late, 416, NAME, size)
    answer = await b.http.put(location, params={"digest": str(Digest.of(data))})
    require_created(answer, NAME, Digest.of(data))
    await require_served(data, a, b)


async def streamed(data: bytes) -> AsyncIterator[bytes]:
    """Yield a body without a length, as Docker sends it."""
    for at in range(0, len(data), 400_000):
        yield data[at : at + 400_000]


@SIZED
async def test_through_nginx(front: Kit, a: Kit, b: Kit, size: int, step: int) -> None:
    data = blob_bytes(f"nginx {size}", size)
    location = await front.start_upload(NAME)
    for start, end in spans(size, step):
        answer = await front.http.patch(location, content=streamed(data[start:end]))
        require_session(answer, 202, NAME, end)
    answer = await front.http.put(location, params={"digest": str(Digest.of(data))})
    require_created(answer, NAME, Digest.of(data))
    await require_served(data, front, a, b)


async def test_many_sessions_at_once(front: Kit, a: Kit, b: Kit) -> None:
    async def push(number: int) -> bytes:
        data = blob_bytes(f"many {number}", PART + 100_000 * number)
        location = await front.start_upload(NAME)
        for start, end in spans(len(data), 2_500_000):
            answer = await front.http.patch(location, content=data[start:end])
            require_session(answer, 202, NAME, end)
        answer = await front.http.put(location, params={"digest": str(Digest.of(data))})
        require_created(answer, NAME, Digest.of(data))
        return data

    for data in await asyncio.gather(*(push(number) for number in range(6))):
        await require_served(data, a, b)


async def test_nothing_is_left_in_the_bucket(replicas: Replicas, a: Kit) -> None:
    """After all tests above, every object and every multipart upload has an owner."""
    location = await a.start_upload(NAME)
    await a.http.patch(location, content=blob_bytes("open", PART + 5))
    assert replicas.list_unowned() == []
    assert (await a.http.delete(location)).status_code == 204
    assert replicas.list_unowned() == []
