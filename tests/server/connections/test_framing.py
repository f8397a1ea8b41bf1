"""Boundaries between requests in raw bytes. MOORAGE_SOAK=100 takes minutes."""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.servers.http_server import Echo, Served, serving_app
from tests.support.servers.raw import Answer, Wire

pytestmark = pytest.mark.anyio

SOAK = int(os.environ.get("MOORAGE_SOAK", "1"))

SMUGGLED = b"DELETE /v2/a/b/manifests/victim HTTP/1.1\r\nHost: x\r\n\r\n"
PUT = b"PUT /z HTTP/1.1\r\nHost: x\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: foo\r\n"


async def talk(served: Served, *segments: bytes, answers: int = 1) -> list[Answer]:
    """Send segments with pauses between them, and return the responses."""
    wire = await Wire.open(served.port)
    try:
        for segment in segments:
            await wire.send(segment)
            await asyncio.sleep(0.05)
        return [await wire.read() for _ in range(answers)]
    finally:
        wire.abort()


async def talk_to_end(served: Served, data: bytes) -> bytes:
    """Send bytes, and read until the server closes the connection."""
    wire = await Wire.open(served.port)
    try:
        await wire.send(data)
        return await wire.reader.read()
    finally:
        wire.abort()


@pytest.mark.parametrize("cut", [0, 10, len(SMUGGLED)])
async def test_with_upgrade_the_body_is_the_body(served: Served, echo: Echo, cut: int) -> None:
    head = PUT + UPGRADE + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)
    segments = [head + SMUGGLED[:cut], SMUGGLED[cut:] + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"]
    await talk(served, *segments, answers=2)
    assert echo.seen == [("PUT", b"/z", SMUGGLED), ("GET", b"/next", b"")]


async def test_curl_that_offers_http_2_can_push(served: Served, echo: Echo) -> None:
    url = f"http://127.0.0.1:{served.port}/z"
    curl = ["curl", "--silent", "--max-time", "20", "--http2", "-X", "PUT", "-d", "hello", url]
    done = await asyncio.to_thread(subprocess.run, curl, capture_output=True, check=True)
    assert done.stdout == b"5"
    assert echo.seen == [("PUT", b"/z", b"hello")]


async def test_trailers_are_dropped(served: Served, echo: Echo) -> None:
    coded = b"5\r\nhello\r\n0\r\nAuthorization: Basic x\r\nHost: evil\r\nX-Forwarded-For: 1\r\n\r\n"
    await talk(served, PUT + b"Transfer-Encoding: chunked\r\n\r\n" + coded)
    assert echo.seen == [("PUT", b"/z", b"hello")]
    assert echo.headers == [{b"host": b"x", b"transfer-encoding": b"chunked"}]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"GET http:///v2/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (PUT + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (PUT + b"Transfer-Encoding: chunked\r\n\r\nnothex\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * (70 << 10), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),
    ],
)
async def test_a_refusal_has_the_form_of_the_contract_and_ends_the_connection(
    served: Served, echo: Echo, data: bytes, status: int
) -> None:
    head, _, body = (await talk_to_end(served, data + SMUGGLED)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    for field in (
        *(b"Content-Type: application/json", b"Connection: close", b"X-Request-Id: "),
        b"Docker-Distribution-API-Version: registry/2.0",
    ):
        assert field in head
    [error] = json.loads(body)["errors"]
    assert error["code"] == "UNSUPPORTED"
    assert error["message"]
    assert [seen for seen in echo.seen if seen[0] == "DELETE"] == []


async def test_a_refusal_waits_for_the_answers_before_it(served: Served, echo: Echo) -> None:
    answer = await talk_to_end(served, b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 " in answer
    assert [path for _, path, _ in echo.seen] == [b"/1"]


async def test_a_refused_head_request_is_answered_without_a_body(served: Served) -> None:
    answer = await talk_to_end(served, b"HEAD / HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_refusal_after_a_head_request_has_a_body(served: Served) -> None:
    wire = await Wire.open(served.port)
    await wire.send(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in await wire.reader.readuntil(b"\r\n\r\n")
    await wire.send(b"GET /a HTTP/1.1\nHost: x")
    answer = await wire.read()
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (400, "UNSUPPORTED")
    wire.abort()


@pytest.mark.parametrize("count", [1, 3])
async def test_a_client_that_ends_its_side_gets_its_answers(
    served: Served, echo: Echo, count: int
) -> None:
    """`nc -N` and `socat` close their side after the last request."""
    echo.gate.clear()
    wire = await Wire.open(served.port)
    await wire.send((PUT + b"Content-Length: 5\r\n\r\nhello") * count)
    wire.writer.write_eof()
    await asyncio.sleep(0.1)
    echo.gate.set()
    answers = [await wire.read() for _ in range(count)]
    assert [answer.status for answer in answers] == [200] * count
    assert await wire.reader.read() == b""
    wire.abort()


async def test_the_refusal_reaches_a_client_that_is_still_sending(served: Served) -> None:
    """A reset of the connection would discard the response."""
    wire = await Wire.open(served.port)
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * (2 << 20))
    assert (await wire.read()).status == 431
    wire.abort()


async def test_an_empty_line_before_a_request_is_ignored(served: Served, echo: Echo) -> None:
    await talk(
        served, b"\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    assert [path for _, path, _ in echo.seen] == [b"/1", b"/2"]


async def test_an_empty_line_in_two_segments_does_not_hide_the_end_of_a_head(
    served: Served, echo: Echo
) -> None:
    await talk(served, b"\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r", b"\n")
    await talk(served, b"\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r", b"\n")
    assert [path for _, path, _ in echo.seen] == [b"/1", b"/2"]


async def test_expect_is_answered_before_the_body_comes(served: Served) -> None:
    wire = await Wire.open(served.port)
    await wire.send(PUT + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(b"ab")
    assert (await wire.read()).body == b"2"
    wire.abort()


async def test_what_is_sent_ahead_waits_unread(served: Served, echo: Echo) -> None:
    """Regression: 80 connections with 256 KiB of requests each used all memory of a process."""
    echo.gate.clear()
    wire = await Wire.open(served.port)
    wire.writer.write(b"GET /v HTTP/1.1\r\nHost: a\r\n\r\n" * 400_000)  # 11 MB
    await asyncio.sleep(0.5)
    assert len(echo.seen) == 1
    [connection] = served.server.server_state.connections
    assert len(connection._buffer) <= 64 << 10  # type: ignore[union-attr] # ours
    assert wire.writer.transport.get_write_buffer_size() > 1 << 20
    echo.gate.set()
    for _ in range(100):
        assert (await wire.read()).status == 200
    wire.abort()


async def test_pipelined_requests_do_not_starve_others(served: Served, echo: Echo) -> None:
    wire = await Wire.open(served.port)
    wire.writer.write(b"GET /v HTTP/1.1\r\nHost: a\r\n\r\n" * 20_000)
    reading = asyncio.create_task(wire.reader.read(1 << 30))
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{served.port}/other")
    assert answer.status_code == 200
    assert len(echo.seen) < 20_000
    reading.cancel()
    wire.abort()


BODIES = st.one_of(
    st.binary(max_size=300),
    # Longer than one read.
    st.builds(
        lambda seed, size: (seed * size)[:size], st.binary(min_size=1), st.integers(0, 90_000)
    ),
)
CHUNKS = st.lists(st.sampled_from([1, 2, 24, 97, 4096, 16384, 32768, 70_000]), min_size=1)
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["GET", "PUT", "PATCH", "DELETE"]),
        BODIES,
        st.one_of(st.none(), CHUNKS),
        st.sampled_from([b"", b";a", b' ; b="c;d"', b";" + b"e" * 100]),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def write_chunks(body: bytes, sizes: list[int], extension: bytes) -> bytes:
    """Encode the body in chunks of these sizes in turn, and the rest in one after 100 chunks."""
    coded, at = b"", 0
    for size in itertools.islice(itertools.cycle(sizes), 100):
        if chunk := body[at : at + size]:
            coded += b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk)
        at += size
    if rest := body[at:]:
        coded += b"%X\r\n%b\r\n" % (len(rest), rest)
    return coded + b"000%b\r\nX: 1\r\n\r\n" % extension


@settings(
    deadline=None,
    max_examples=40 * SOAK,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    requests=REQUESTS,
    cuts=st.lists(st.integers(0, 200_000), max_size=8),
    singly=st.sampled_from([0, 100, 300]),
)
def test_requests_are_the_same_however_they_arrive(
    requests: list[tuple[str, bytes, list[int] | None, bytes, bool]], cuts: list[int], singly: int
) -> None:
    """The first `singly` bytes are sent one by one."""
    data, expected = b"", []
    for number, (method, body, sizes, extension, upgrade) in enumerate(requests):
        head = f"{method} /{number} HTTP/1.1\r\nHost: x\r\n".encode()
        head += UPGRADE if upgrade else b""
        if sizes is None:
            data += head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        else:
            head += b"Transfer-Encoding: chunked\r\n\r\n"
            data += head + write_chunks(body, sizes, extension)
        expected.append((method, f"/{number}".encode(), body))
    places = sorted(
        {0, len(data), *(cut % len(data) for cut in cuts), *range(min(singly, len(data)))}
    )

    async def send_pieces(wire: Wire) -> None:
        for start, end in itertools.pairwise(places):
            await wire.send(data[start:end])
            await asyncio.sleep(0)

    async def run() -> Echo:
        echo = Echo()
        async with serving_app(echo) as served:
            wire = await Wire.open(served.port)
            sending = asyncio.create_task(send_pieces(wire))
            for _ in requests:
                assert (await wire.read()).status == 200
            await sending
            await wire.close()
        return echo

    assert asyncio.run(run()).seen == expected


@settings(deadline=None, max_examples=60 * SOAK)
@given(st.data())
def test_damaged_requests_are_answered_or_cut_and_leave_the_server_alive(
    data: st.DataObject,
) -> None:
    whole = bytearray(
        PUT + UPGRADE + b"Content-Length: 5\r\nX: y\r\n\r\nhello"
        b"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        b"PUT /d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n"
        + b"1\r\nx\r\n" * data.draw(st.sampled_from([0, 50, 4000]))
        + b"0\r\nX: y\r\n\r\n"
    )
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        noise = data.draw(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\x00", b" ", b":", b"9"]))
        whole[place : place + data.draw(st.integers(0, 2))] = noise

    cut = data.draw(st.integers(0, len(whole)))

    async def run() -> bytes:
        async with serving_app(Echo()) as served:
            wire = await Wire.open(served.port)
            with contextlib.suppress(ConnectionError):  # the server may refuse before the end
                for piece in (whole[:cut], whole[cut:], SMUGGLED):
                    await wire.send(bytes(piece))
                    await asyncio.sleep(0)
                wire.writer.write_eof()
            answer = await wire.reader.read()
            wire.abort()
            async with httpx.AsyncClient() as http:
                assert (await http.get(f"http://127.0.0.1:{served.port}/")).status_code == 200
        return answer

    assert b"HTTP/1.1 500" not in asyncio.run(run())
