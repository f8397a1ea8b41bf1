"""Responses as bytes, and applications that fail to send a complete response."""

import asyncio

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.servers.http_server import answer_lifespan, serving_app
from tests.support.servers.raw import Wire

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-length", b"5")],
}


def sending(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        for message in messages:
            await send(dict(message))

    return app


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def exchange(app: ASGIApp, request: bytes, *, count: int = 1) -> bytes:
    """Send the request `count` times, and read until the server closes or is silent.

    If the server closes the connection, `<end>` is appended.
    """
    async with serving_app(app) as served:
        wire = await Wire.open(served.port)
        await wire.send(request * count)
        answer = b""
        try:
            async with asyncio.timeout(0.5):
                while piece := await wire.reader.read(1 << 20):
                    answer += piece
                answer += b"<end>"
        except TimeoutError:
            pass
        finally:
            wire.abort()
        return answer


async def test_names_are_spelled_as_people_search_for_them() -> None:
    names = [
        *(b"docker-content-digest", b"docker-distribution-api-version", b"docker-upload-uuid"),
        *(b"etag", b"www-authenticate", b"oci-subject", b"x-request-id"),
    ]
    start = {**START, "headers": [*((name, b"1") for name in names), *START["headers"]]}
    answer = await exchange(sending(start, body(b"hello")), GET)
    for spelled in (
        *(b"Docker-Content-Digest", b"Docker-Distribution-API-Version", b"Docker-Upload-UUID"),
        *(b"ETag", b"WWW-Authenticate", b"OCI-Subject", b"X-Request-Id", b"Content-Length"),
    ):
        assert b"\r\n" + spelled + b": " in answer


@pytest.mark.parametrize("status", [204, 304])
async def test_some_statuses_have_no_body_and_the_connection_stays(status: int) -> None:
    start = {"type": "http.response.start", "status": status, "headers": []}
    answer = await exchange(sending(start, body(b"")), GET, count=2)
    assert answer.count(b"HTTP/1.1 %d" % status) == 2
    assert answer.endswith(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in answer


async def test_head_has_the_length_and_no_body() -> None:
    answer = await exchange(sending(START, body(b"hello")), b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"Content-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_without_a_length_it_is_chunked_and_to_http_1_0_it_ends_with_the_connection() -> None:
    start = {**START, "headers": []}
    app = sending(start, body(b"he", more=True), body(b"llo"))
    answer = await exchange(app, GET, count=2)
    assert answer.count(b"\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n") == 2
    answer = await exchange(app, b"GET / HTTP/1.0\r\n\r\n")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nhello<end>")


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (body(b"hello"),),
        ({**START, "headers": [(b"x", b"a\r\nb")]}, body(b"hello")),
        ({**START, "headers": [(b"x y", b"a")]}, body(b"hello")),
        (START, START),
    ],
)
async def test_an_application_that_gives_no_answer_is_answered_for(
    messages: tuple[Message, ...],
) -> None:
    answer = await exchange(sending(*messages), GET)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b'"code":"UNKNOWN"' in answer
    assert answer.endswith(b"<end>")


@pytest.mark.parametrize(
    "messages",
    [
        (START, body(b"he", more=True)),
        (START, body(b"he")),
        (START, body(b"he", more=True), body(b"llolo")),
    ],
)
async def test_a_body_that_breaks_off_is_cut_and_never_ended_well(
    messages: tuple[Message, ...],
) -> None:
    async with serving_app(sending(*messages)) as served:
        wire = await Wire.open(served.port)
        await wire.send(GET + GET)
        data = b""
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            data = await wire.reader.readexactly(1 << 20)
        assert data.count(b"HTTP/1.1") <= 1
        wire.abort()


async def test_a_request_body_that_was_not_read_is_not_the_next_request() -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    put = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    answer = await exchange(sending(START, body(b"hello")), put + smuggled)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"hello<end>")
