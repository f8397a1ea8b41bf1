"""Endpoint 2: GET and HEAD of blobs."""

import os

import pytest

from storage.digest import Digest
from tests.api.blobs.helpers import ABSENT, DATA, LOCAL, SQLITE, immutable, url
from tests.api.conftest import Api
from tests.support.kit import (
    Exchange,
    codes,
    list_open_files,
    read_parts,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_2_says_all_about_the_blob(api: Api, algorithm: str) -> None:
    digest = await api.push_blob("team/app", DATA, algorithm)
    expected = {
        "docker-content-digest": str(digest),
        "content-length": str(len(DATA)),
        "content-type": "application/octet-stream",
        "accept-ranges": "bytes",
        **immutable(digest),
    }
    for method, body in (("GET", DATA), ("HEAD", b"")):
        # Compressed bytes would have another digest.
        headers = {"Accept-Encoding": "gzip, br, zstd"}
        exchange = await api.speak(method, url("team/app", digest), headers).finish()
        assert exchange.status == 200
        assert expected.items() <= dict(exchange.headers).items()
        assert "content-encoding" not in exchange.headers
        assert exchange.headers["docker-distribution-api-version"] == "registry/2.0"
        assert exchange.body == body


@LOCAL
@SQLITE
async def test_2_digest_in_the_path_may_be_escaped(api: Api) -> None:
    digest = await api.push_blob("app", DATA)
    answer = await api.http.get(url("app", str(digest).replace(":", "%3A")))
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["Docker-Content-Digest"] == str(digest)


async def test_2_the_same_bytes_are_served_under_each_digest_they_were_pushed_with(
    api: Api,
) -> None:
    for algorithm in ("sha256", "sha512"):
        digest = Digest.of(DATA, algorithm)
        assert (await api.http.get(url("app", digest))).status_code == 404
        await api.push_blob("app", DATA, algorithm)
        answer = await api.http.get(url("app", digest))
        assert answer.headers["Docker-Content-Digest"] == str(digest)
        assert answer.content == DATA


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 7])
@SQLITE
async def test_2_every_length_comes_whole(api: Api, size: int) -> None:
    data = os.urandom(size)
    digest = await api.push_blob("app", data)
    answer = await api.http.get(url("app", digest))
    assert answer.headers["Content-Length"] == str(size)
    assert answer.content == data
    assert (await api.http.head(url("app", digest))).headers["Content-Length"] == str(size)


@SQLITE
async def test_2_one_range_is_answered_with_it(api: Api) -> None:
    digest = await api.push_blob("app", DATA)
    last = len(DATA) - 1
    for asked, (first, end) in {
        "bytes=0-0": (0, 0),
        "bytes=0-9": (0, 9),
        "bytes=5-5": (5, 5),
        "bytes=100-": (100, last),
        f"bytes={last}-": (last, last),
        f"bytes=0-{last}": (0, last),
        "bytes=1000-99999": (1000, last),
        "bytes=-1": (last, last),
        "bytes=-24": (1000, last),
        "bytes=-99999": (0, last),
        "Bytes=7-8": (7, 8),
    }.items():
        answer = await api.http.get(url("app", digest), headers={"Range": asked})
        assert answer.status_code == 206, asked
        assert answer.headers["Content-Range"] == f"bytes {first}-{end}/{len(DATA)}"
        assert answer.headers["Content-Length"] == str(end - first + 1)
        assert answer.content == DATA[first : end + 1]
        assert immutable(digest).items() <= dict(answer.headers).items()
        assert answer.headers["Docker-Content-Digest"] == str(digest)
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert "Content-Encoding" not in answer.headers


@SQLITE
async def test_2_a_range_across_the_pieces_of_a_large_blob(api: Api) -> None:
    data = os.urandom((2 << 20) + 100)
    digest = await api.push_blob("app", data)
    first, last = (1 << 20) - 5, (2 << 20) + 5
    answer = await api.http.get(url("app", digest), headers={"Range": f"bytes={first}-{last}"})
    assert answer.status_code == 206
    assert answer.content == data[first : last + 1]


@SQLITE
async def test_2_several_ranges_are_parts_in_the_order_asked(api: Api) -> None:
    """Adjacent ranges are not merged, because podman counts the parts."""
    size = len(DATA)
    digest = await api.push_blob("app", DATA)
    for asked, parts in {
        "bytes=0-1,4-5": [(0, 1), (4, 5)],
        "bytes=4-5,0-1": [(4, 5), (0, 1)],
        "bytes=0-1,2-3,3-4": [(0, 1), (2, 3), (3, 4)],
        "bytes=7-7,7-7": [(7, 7), (7, 7)],
        "bytes=0-0, -1": [(0, 0), (size - 1, size - 1)],
        "bytes=0-511,512-": [(0, 511), (512, size - 1)],
        f"bytes=1-1,2-2,{size}-": [(1, 1), (2, 2)],
    }.items():
        exchange = await api.speak("GET", url("app", digest), {"Range": asked}).finish()
        assert exchange.status == 206, asked
        assert int(exchange.headers["Content-Length"]) == len(exchange.body)
        assert read_parts(exchange.headers["Content-Type"], exchange.body) == [
            (f"bytes {first}-{last}/{size}", DATA[first : last + 1]) for first, last in parts
        ]
        assert "Content-Range" not in exchange.headers
        assert immutable(digest).items() <= dict(exchange.headers).items()
        assert exchange.headers["Docker-Content-Digest"] == str(digest)


@SQLITE
async def test_2_a_thousand_ranges_of_a_large_blob(api: Api) -> None:
    data = os.urandom((2 << 20) + 100)
    digest = await api.push_blob("app", data)
    parts = [(n * 2040 + 1, n * 2040 + 1 + n % 900) for n in range(1024)]
    asked = "bytes=" + ",".join(f"{first}-{last}" for first, last in parts)
    answer = await api.http.get(url("app", digest), headers={"Range": asked})
    assert answer.status_code == 206
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert read_parts(answer.headers["Content-Type"], answer.content) == [
        (f"bytes {first}-{last}/{len(data)}", data[first : last + 1]) for first, last in parts
    ]
    # After a refusal, podman retries with half of the ranges.
    answer = await api.http.get(url("app", digest), headers={"Range": f"{asked},7-7"})
    assert (answer.status_code, codes(answer)) == (400, ["UNSUPPORTED"])
    one_by_one = {"Range": "bytes=" + "1-1," * 6000}
    answer = await api.http.get(url("app", digest), headers=one_by_one)
    assert (answer.status_code, codes(answer)) == (400, ["UNSUPPORTED"])


@LOCAL
@SQLITE
async def test_2_what_is_no_range_or_more_than_all_gets_everything(api: Api) -> None:
    digest = await api.push_blob("app", DATA)
    for asked in (
        "bytes=0-1023,0-0",
        "bytes=0-700,300-1023",
        "bytes=0-1,x",
        "lines=0-1",
        "bytes=-",
        "bytes=a-b",
        "0-4",
        "",
    ):
        answer = await api.http.get(url("app", digest), headers={"Range": asked})
        assert answer.status_code == 200, asked
        assert "Content-Range" not in answer.headers
        assert answer.content == DATA


@LOCAL
@SQLITE
async def test_2_a_range_outside_is_416_with_the_size(api: Api) -> None:
    digest = await api.push_blob("app", DATA)
    size = len(DATA)
    for asked in (
        f"bytes={size}-",
        f"bytes={size}-{size + 5}",
        "bytes=9-8",
        "bytes=-0",
        f"bytes={size}-,{size}-",
    ):
        answer = await api.http.get(url("app", digest), headers={"Range": asked})
        assert answer.status_code == 416, asked
        assert answer.headers["Content-Range"] == f"bytes */{size}"
        assert codes(answer) == ["SIZE_INVALID"]
        assert answer.json()["errors"][0]["detail"] == {"size": size}
    huge = await api.http.get(url("app", digest), headers={"Range": f"bytes={'9' * 30}-"})
    assert (huge.status_code, huge.headers["Content-Range"]) == (416, f"bytes */{size}")


@LOCAL
@SQLITE
async def test_2_range_on_head_is_ignored(api: Api) -> None:
    digest = await api.push_blob("app", DATA)
    for asked in ("bytes=0-9", "bytes=99999-", "bytes=9-8", "bytes=0-1,4-5"):
        answer = await api.http.head(url("app", digest), headers={"Range": asked})
        assert answer.status_code == 200, asked
        assert answer.headers["Content-Length"] == str(len(DATA))
        assert "Content-Range" not in answer.headers


@SQLITE
async def test_2_if_range_gives_the_part_only_of_the_same_blob(api: Api) -> None:
    digest = await api.push_blob("app", DATA)
    for condition, status in {
        f'"{digest}"': 206,
        f'W/"{digest}"': 200,  # RFC 9110 section 13.1.5 requires the strong comparison
        '"another"': 200,
        "Thu, 23 Jul 2026 10:00:00 GMT": 200,
    }.items():
        headers = {"Range": "bytes=1-2", "If-Range": condition}
        answer = await api.http.get(url("app", digest), headers=headers)
        assert answer.status_code == status, condition
        assert answer.content == (DATA[1:3] if status == 206 else DATA)


async def test_2_if_none_match_is_304_without_a_body(api: Api) -> None:
    digest = await api.push_blob("app", DATA)
    for condition in (f'"{digest}"', f'W/"{digest}"', f'"other", "{digest}"', "*"):
        for method in ("GET", "HEAD"):
            headers = {"If-None-Match": condition, "Range": "bytes=99999-"}
            exchange = await api.speak(method, url("app", digest), headers).finish()
            assert exchange.status == 304, condition
            assert exchange.body == b""
            assert immutable(digest).items() <= dict(exchange.headers).items()
            assert exchange.headers.get("content-length", "0") in {"0", str(len(DATA))}
    for condition in ('"other"', f'"{ABSENT}"', '"*"'):
        for method in ("GET", "HEAD"):
            answer = await api.http.request(
                method, url("app", digest), headers={"If-None-Match": condition}
            )
            assert answer.status_code == 200, condition


async def test_2_if_none_match_does_not_bring_an_absent_blob_to_life(api: Api) -> None:
    await api.push_blob("app", DATA)
    for condition in (f'"{ABSENT}"', "*"):
        answer = await api.http.get(url("app", ABSENT), headers={"If-None-Match": condition})
        assert answer.status_code == 404


async def test_2_an_unknown_blob_and_an_unknown_repository_look_alike(api: Api) -> None:
    await api.push_blob("app", DATA)
    seen = set()
    for name in ("app", "nobody/here"):
        answer = await api.http.get(url(name, ABSENT))
        assert answer.status_code == 404
        assert codes(answer) == ["BLOB_UNKNOWN"]
        assert answer.json()["errors"][0]["detail"] == {"digest": str(ABSENT)}
        seen.add(answer.text)
        head = await api.speak("HEAD", url(name, ABSENT)).finish()
        assert (head.status, head.body, head.complete) == (404, b"", True)
    assert len(seen) == 1


@LOCAL
@SQLITE
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_2_10_a_bad_digest_is_400(api: Api, method: str) -> None:
    await api.push_blob("app", DATA)
    good = Digest.of(DATA)
    for bad in (
        "sha256:",
        "sha256:" + good.hex.upper(),
        "sha256:" + good.hex[:-1],
        "sha256:" + good.hex + "0",
        "sha512:" + good.hex,
        "sha256:" + "g" * 64,
        "md5:" + "0" * 32,
        "sha384:" + "0" * 96,
        good.hex,
        "latest",
    ):
        exchange = await api.speak(method, url("app", bad)).finish()
        assert exchange.status == 400, bad
        if method == "HEAD":
            assert exchange.body == b""
        else:
            assert codes(exchange.answer()) == ["DIGEST_INVALID"]


@LOCAL
@SQLITE
async def test_2_a_bad_name_is_400(api: Api) -> None:
    for name in ("UPPER", "a__.b", "-a", "a" * 256, "team/-"):
        answer = await api.http.get(url(name, ABSENT))
        assert answer.status_code == 400, name
        assert codes(answer) == ["NAME_INVALID"]


async def test_2_a_name_may_hold_the_words_of_paths(api: Api) -> None:
    for name in ("blobs/uploads", "a/blobs/b", "a/manifests/tags/list"):
        digest = await api.push_blob(name, name.encode())
        assert (await api.http.get(url(name, digest))).content == name.encode()


@LOCAL
@SQLITE
async def test_2_other_methods_are_405_with_those_there_are(api: Api) -> None:
    digest = await api.push_blob("app", DATA)
    for method in ("PUT", "POST", "PATCH", "OPTIONS"):
        answer = await api.http.request(method, url("app", digest))
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "DELETE, GET, HEAD"
        assert codes(answer) == ["UNSUPPORTED"]


@LOCAL
@SQLITE
async def test_2_a_client_that_leaves_costs_no_descriptor(api: Api) -> None:
    digest = await api.push_blob("app", os.urandom(3 << 20))

    def list_open() -> list[str]:
        return list_open_files(api.settings.storage_root / "blobs")

    async def leave(exchange: Exchange) -> None:
        if len(exchange.sent) > 1:
            assert len(list_open()) == 1
            raise OSError("the peer has gone")

    for _ in range(3):
        exchange = await api.speak("GET", url("app", digest), on_send=leave).ended()
        assert len(exchange.sent) == 2
        assert list_open() == []
