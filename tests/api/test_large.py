"""Memory for large manifests of all clients."""

import asyncio
import gc
import json

import pytest

from registry.http import memory
from registry.metadata.content import referrers as stored_referrers
from registry.metadata.content.manifests import ManifestRow
from registry.metadata.engine.transaction import Transaction
from registry.oci.manifests import Manifest
from registry.oci.media_types import OCI_INDEX, OCI_MANIFEST
from registry.services.content import referrers
from storage.digest import Digest
from tests.api.conftest import Started
from tests.support.kit import codes, descriptor, image_manifest

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("driver", ["memory"]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

NAME = "team/app"
KIB = 1024
TYPE = {"Content-Type": OCI_INDEX}


def large(number: int, size: int = 100 * KIB) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [],
            "annotations": {"n": str(number), "padding": "x" * (size - 200)},
        }
    ).encode()


def url(reference: object) -> str:
    return f"/v2/{NAME}/manifests/{reference}"


async def test_a_large_body_waits_until_there_is_memory(
    start_api: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_api({"limits.request_memory": "250KiB"}) as api:
        raws = [large(number) for number in range(3)]
        sent = [
            api.speak("PUT", url(n), {**TYPE, "Content-Length": str(len(raw))})
            for n, raw in enumerate(raws)
        ]
        for each in sent[:2]:
            await each.wanted()
        await asyncio.sleep(0.05)
        assert not sent[2]._waiting.is_set()  # nothing of its body is read
        # A small manifest does not wait.
        small = large(9, 10 * KIB)
        assert (await api.put_manifest(NAME, "small", small)).status_code == 201
        assert (await sent[0].finish(raws[0])).status == 201
        for n in (2, 1):
            assert (await sent[n].finish(raws[n])).status == 201
        # A request that waits for too long gets a 503 response.
        monkeypatch.setattr(memory, "MEMORY_TIMEOUT_S", 0.05)
        held = [api.speak("PUT", url("t"), {**TYPE, "Content-Length": "204800"})]
        await held[0].wanted()
        answer = await api.put_manifest(NAME, "t", raws[0])
        assert (answer.status_code, codes(answer)) == (503, ["UNAVAILABLE"])
        assert int(answer.headers["Retry-After"]) > 0
        await held[0].hang_up()
        assert (await api.put_manifest(NAME, "t", raws[0])).status_code == 201


async def test_a_body_without_length_waits_once_it_is_large(start_api: Started) -> None:
    async with start_api({"limits.request_memory": "4MiB"}) as api:
        chunked = {**TYPE, "Transfer-Encoding": "chunked"}
        raw = large(1)
        first, second = (api.speak("PUT", url(n), chunked) for n in range(2))
        await first.feed(raw[: 20 * KIB])
        await second.feed(raw[: 10 * KIB])
        await second._deliver({"type": "http.request", "body": raw[10 * KIB : 20 * KIB],
                               "more_body": True})  # fmt: skip
        await asyncio.sleep(0.05)
        assert not second._waiting.is_set()
        assert (await first.finish(raw[20 * KIB :])).status == 201
        assert (await second.finish(raw[20 * KIB :])).status == 201


async def test_a_slow_body_gives_its_memory_back(
    start_api: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "GRACE_S", 0.1)
    monkeypatch.setattr(memory, "MIN_RATE", 10 << 20)
    async with start_api({"limits.request_memory": "150KiB"}) as api:
        raw = large(1)
        slow = api.speak("PUT", url("slow"), {**TYPE, "Content-Length": str(len(raw))})
        await slow.feed(raw[:1000])
        assert (await api.put_manifest(NAME, "t", raw)).status_code == 201
        await slow.ended()
        assert slow.status == 400


async def test_a_large_answer_waits_until_there_is_memory(
    start_api: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: 400 clients that read nothing held 4 MiB each."""
    monkeypatch.setattr(memory, "MEMORY_TIMEOUT_S", 0.05)
    async with start_api(
        {"limits.response_memory": "250KiB", "limits.manifest_cache_size": "0B"}
    ) as api:
        raws = [large(number) for number in range(3)]
        for n, raw in enumerate(raws):
            assert (await api.put_manifest(NAME, str(n), raw)).status_code == 201
        small = large(9, 10 * KIB)
        assert (await api.put_manifest(NAME, "small", small)).status_code == 201
        go_on = asyncio.Event()

        async def stall(_: object) -> None:
            await go_on.wait()

        slow = [api.speak("GET", url(n), {}, stall) for n in range(2)]
        for each in slow:
            while not each.sent:
                await asyncio.sleep(0.01)
        answer = await api.http.get(url(2))
        assert (answer.status_code, codes(answer)) == (503, ["UNAVAILABLE"])
        # Requests that need no memory are answered.
        assert (await api.http.head(url(2))).status_code == 200
        assert (await api.http.get(url("small"))).content == small
        go_on.set()
        for each, raw in zip(slow, raws, strict=False):
            assert (await each.ended()).body == raw
            assert max(len(message.get("body", b"")) for message in each.sent) <= memory.CHUNK_SIZE
        assert (await api.http.get(url(2))).content == raws[2]


async def test_many_readers_of_one_large_manifest_take_it_once(start_api: Started) -> None:
    async with start_api({"limits.response_memory": "150KiB"}) as api:
        raw = large(1)
        # The manifest is smaller than a sixteenth of the cache, so it is cached.
        assert (await api.put_manifest(NAME, "t", raw)).status_code == 201
        assert (await api.http.get(url("t"))).content == raw
        go_on = asyncio.Event()

        async def stall(_: object) -> None:
            await go_on.wait()

        readers = [api.speak("GET", url("t"), {}, stall) for _ in range(20)]
        for each in readers:
            while not each.sent:
                await asyncio.sleep(0.01)
        go_on.set()
        assert {(await each.ended()).body for each in readers} == {raw}


async def test_a_reader_that_is_too_slow_is_cut_off(
    start_api: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "GRACE_S", 0.1)
    monkeypatch.setattr(memory, "MIN_RATE", 10 << 20)
    async with start_api({"limits.response_memory": "150KiB"}) as api:
        raw = large(1)
        await api.put_manifest(NAME, "t", raw)

        async def stall(_: object) -> None:
            await asyncio.Event().wait()

        slow = api.speak("GET", url("t"), {}, stall)
        await slow.ended()
        assert not slow.complete
        assert (await api.http.get(url("t"))).content == raw


async def test_referrers_are_read_by_bytes_and_not_by_rows(
    start_api: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: 150 manifests with 4 MiB of annotations were read at once."""
    monkeypatch.setattr(referrers, "READ_BYTES", 100 * KIB)
    read: list[int] = []
    real = stored_referrers.read_annotations

    def watched(tx: Transaction, rows: list[ManifestRow]) -> dict[int, dict[str, str]]:
        read.append(sum(row.size for row in rows))
        return real(tx, rows)

    monkeypatch.setattr(stored_referrers, "read_annotations", watched)
    async with start_api() as api:
        await api.push_blob(NAME, b"{}")
        subject = image_manifest(b"{}", [])
        raw = b""
        for n in range(10):
            raw = image_manifest(
                b"{}",
                [],
                subject=descriptor(subject, OCI_MANIFEST),
                annotations={"n": str(n), "x": "y" * (30 * KIB)},
            )
            await api.put_manifest(NAME, str(Digest.of(raw)), raw)
        answer = await api.http.get(f"/v2/{NAME}/referrers/{Digest.of(subject)}")
        assert len(answer.json()["manifests"]) == 10
        assert len(read) == 4
        assert max(read) <= 100 * KIB
        # The list is cached until the repository changes.
        again = await api.http.get(f"/v2/{NAME}/referrers/{Digest.of(subject)}")
        assert (again.content, len(read)) == (answer.content, 4)
        await api.http.delete(url(Digest.of(raw)))
        answer = await api.http.get(f"/v2/{NAME}/referrers/{Digest.of(subject)}")
        assert len(answer.json()["manifests"]) == 9


def count_manifests() -> int:
    return sum(isinstance(each, Manifest) for each in gc.get_objects())


async def test_a_refused_manifest_is_forgotten_at_once(start_api: Started) -> None:
    """Regression: errors, futures and frames formed cycles that kept 4 MiB each over the budget."""
    async with start_api() as api:
        gc.collect()
        gc.disable()
        try:
            before = count_manifests()
            for n in range(3):
                raw = image_manifest(f"missing {n}".encode(), [], padding="x" * 300 * KIB)
                answer = await api.http.put(
                    url("t"), content=raw, headers={"Content-Type": OCI_MANIFEST}
                )
                assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]
            # The thread that woke up the last request refers to its error until it runs again.
            # A cycle would never let go of it, because the collector is off.
            async with asyncio.timeout(10):
                while count_manifests() > before:
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()
