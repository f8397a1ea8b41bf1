"""Parser of request heads, without connections."""

import pytest

from registry.server.framing_error import FramingError
from registry.server.head import (
    MAX_FIELDS,
    MAX_HEAD,
    MAX_LONG_TARGET,
    MAX_TARGET,
    check_partial_head,
    parse_head,
)

GET = b"GET /v2/ HTTP/1.1\r\nHost: registry"


def test_a_head_is_read_to_its_parts() -> None:
    head = parse_head(
        b"PUT /v2/a%20b?x=1?2 HTTP/1.1\r\nHost: h:5000\r\nX-Thing:  a b\t \r\nContent-Length: 7"
    )
    assert (head.method, head.path, head.query, head.version) == (
        *("PUT", b"/v2/a%20b"),
        *(b"x=1?2", "1.1"),
    )
    assert head.headers == [(b"host", b"h:5000"), (b"x-thing", b"a b"), (b"content-length", b"7")]
    assert (head.length, head.keep_alive, head.expects_continue) == (7, True, False)


@pytest.mark.parametrize(
    ("fields", "length", "keep_alive", "expects"),
    [
        (b"", 0, True, False),
        (b"\r\nTransfer-Encoding: Chunked", None, True, False),
        (b"\r\nConnection: Upgrade, close", 0, False, False),
        (b"\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3", 3, True, False),
        (b"\r\nExpect: 100-Continue\r\nContent-Length: 1", 1, True, True),
    ],
)
def test_what_follows_the_head(
    fields: bytes, length: int | None, keep_alive: bool, expects: bool
) -> None:
    head = parse_head(GET + fields)
    assert (head.length, head.keep_alive, head.expects_continue) == (length, keep_alive, expects)


def test_http_1_0_needs_no_host_and_is_of_one_request() -> None:
    head = parse_head(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue")
    assert (head.version, head.keep_alive, head.expects_continue) == ("1.0", False, False)


def test_the_authority_of_an_absolute_target_is_the_host() -> None:
    head = parse_head(b"GET http://real:5000/v2/?a HTTP/1.1\r\nHost: other")
    assert (head.path, head.query, head.headers) == (b"/v2/", b"a", [(b"host", b"real:5000")])
    assert parse_head(b"GET HTTPS://real?q HTTP/1.1\r\nHost: x").path == b"/"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1",
        GET + b"\r\nHost: registry",
        b"GET / HTTP/1.1\r\nHost: a b",
        b"GET / HTTP/1.1\r\nHost: a/b",
        b"GET / HTTP/1.1\r\nHost: a@b",
        b"GET / HTTP/2.0\r\nHost: a",
        b"GET / HTTP/1.2\r\nHost: a",
        b"GET / HTTP/1.11\r\nHost: a",
        b"PRI * HTTP/2.0",
        b"GET /\r\nHost: a",
        b"GET  / HTTP/1.1\r\nHost: a",
        b"GET / HTTP/1.1 \r\nHost: a",
        b" GET / HTTP/1.1\r\nHost: a",
        b"GET /a b HTTP/1.1\r\nHost: a",
        b"GET /\tb HTTP/1.1\r\nHost: a",
        b"G\x00T / HTTP/1.1\r\nHost: a",
        b"GET a HTTP/1.1\r\nHost: a",
        b"OPTIONS * HTTP/1.1\r\nHost: a",
        b"GET ftp://a/ HTTP/1.1\r\nHost: a",
        b"GET http://a b/ HTTP/1.1\r\nHost: a",
        b"GET http://user@a/ HTTP/1.1\r\nHost: a",
        b"GET /#f HTTP/1.1\r\nHost: a",
        GET + b"\r\n folded",
        GET + b"\r\n\tfolded",
        GET + b"\r\nX : 1",
        GET + b"\r\n: 1",
        GET + b"\r\nNone",
        GET + b"\r\nX: a\nY: b",
        GET + b"\r\nX: a\rY: b",
        GET + b"\r\nX: a\x00b",
        GET + b"\r\nX\x80: a",
        GET + b"\r\nContent-Length: 1\r\nContent-Length: 1",
        GET + b"\r\nContent-Length: 1, 1",
        GET + b"\r\nContent-Length: +1",
        GET + b"\r\nContent-Length: -1",
        GET + b"\r\nContent-Length: 0x1",
        GET + b"\r\nContent-Length: 1_0",
        GET + b"\r\nContent-Length: \xb2",
        GET + b"\r\nContent-Length:",
        GET + b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        GET + b"\r\nTransfer-Encoding: gzip, chunked",
        GET + b"\r\nTransfer-Encoding: chunked, chunked",
        GET + b"\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        GET + b"\r\nTransfer-Encoding: identity",
        GET + b"\r\nTransfer-Encoding: xchunked",
        GET + b"\r\nTransfer-Encoding:",
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(FramingError) as caught:
        parse_head(head)
    assert (caught.value.status, caught.value.code) == (400, "UNSUPPORTED")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a", 405),
        (b"GET /" + b"a" * MAX_TARGET + b" HTTP/1.1\r\nHost: a", 414),
        (GET + b"\r\nX: 1" * MAX_FIELDS, 431),
        (GET + b"\r\nX: " + b"a" * MAX_HEAD, 431),
    ],
)
def test_limits_have_statuses_of_their_own(head: bytes, status: int) -> None:
    with pytest.raises(FramingError) as caught:
        parse_head(head)
    assert caught.value.status == status


def test_the_limits_themselves_are_allowed() -> None:
    parse_head(b"GET /" + b"a" * (MAX_TARGET - 1) + b" HTTP/1.1\r\nHost: a")
    parse_head(GET + b"\r\nX: 1" * (MAX_FIELDS - 1))
    parse_head(GET + b"\r\nRange: bytes=" + b"0-1," * 5000)  # podman sends 20 KB


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"\n", 400),
        (GET + b"\r\nX: 1\n", 400),
        (b"GET /" + b"a" * MAX_TARGET * 2, 414),
        (GET + b"\r\nX: " + b"a" * MAX_HEAD, 431),
    ],
)
def test_a_beginning_that_cannot_become_a_head_is_refused_at_once(data: bytes, status: int) -> None:
    with pytest.raises(FramingError) as caught:
        check_partial_head(data, 0)
    assert caught.value.status == status
    check_partial_head(GET + b"\r\nX: 1\r", 0)


LONG = (b"/token", b"/registry/token")


def asking(target: bytes, method: bytes = b"GET", size: int = 40 << 10) -> bytes:
    return method + b" " + target + b"a" * (size - len(target)) + b" HTTP/1.1\r\nHost: a"


@pytest.mark.parametrize("path", LONG)
def test_the_query_of_some_paths_may_be_long(path: bytes) -> None:
    data = asking(path + b"?", size=MAX_LONG_TARGET)
    check_partial_head(data, 0, LONG)
    check_partial_head(data[: 20 << 10], 0, LONG)
    assert parse_head(data, LONG).path == path


@pytest.mark.parametrize(
    "data",
    [
        asking(b"/token?", size=MAX_LONG_TARGET + 1),
        asking(b"/token?", b"POST"),
        asking(b"/token?", b"HEAD"),
        asking(b"/token"),
        asking(b"/tokens?"),
        asking(b"/token/?"),
        asking(b"/token/../v2/?"),
        asking(b"//token?"),
        asking(b"/%74oken?"),
        asking(b"/v2/?/token?"),
        asking(b"/v2/token?"),
        asking(b"/other/token?"),
        asking(b"http://a/token?"),
    ],
)
def test_no_other_target_may_be_long(data: bytes) -> None:
    partial = data.partition(b"\r\n")[0] + b"a" * 100
    with pytest.raises(FramingError) as caught:
        check_partial_head(partial, 0, LONG)
    assert caught.value.status == 414
    with pytest.raises(FramingError) as caught:
        parse_head(data, LONG)
    assert caught.value.status == 414
