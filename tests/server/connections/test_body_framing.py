"""Parsers of body framing, without connections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.server.body_framing import MAX_TRAILER, ChunkedBody, FixedBody
from registry.server.framing_error import FramingError


def take(body: FixedBody | ChunkedBody, data: bytes, step: int) -> tuple[bytes, bytes]:
    """Feed `data` in steps, and return the body and the bytes after it."""
    taken, rest = b"", b""
    for at in range(0, len(data), step):
        piece, rest = body.feed(data[at : at + step])
        taken += piece
        if body.complete:
            return taken, rest + data[at + step :]
    return taken, rest


@given(st.binary(max_size=40), st.binary(max_size=20), st.integers(1, 60))
def test_a_body_of_known_length_ends_there(body: bytes, rest: bytes, step: int) -> None:
    framed = FixedBody(len(body))
    if body:
        assert take(framed, body + rest, step) == (body, rest)
    assert framed.complete


@given(
    st.lists(st.binary(min_size=1, max_size=20), max_size=5),
    st.sampled_from([b"", b";a", b' ;a="b c"', b"; x=1;y"]),
    st.sampled_from([b"", b"X: 1\r\n", b"Host: evil\r\nContent-Length: 5\r\n"]),
    st.binary(max_size=20),
    st.integers(1, 80),
)
def test_a_chunked_body_is_the_same_however_it_arrives(
    chunks: list[bytes], extension: bytes, trailer: bytes, rest: bytes, step: int
) -> None:
    coded = b"".join(b"%x%b\r\n%b\r\n" % (len(c), extension, c) for c in chunks)
    framed = ChunkedBody()
    assert take(framed, coded + b"0\r\n" + trailer + b"\r\n" + rest, step) == (
        b"".join(chunks),
        rest,
    )
    assert framed.complete


@pytest.mark.parametrize("step", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    "coded",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"\r\nhello\r\n",
        b"10000000000000000\r\n",
        b"5\x00\r\nhello\r\n",
        b"5;a\x00\r\nhello\r\n",
        b"5;\r\r\nhello\r\n",
        b"5" + b";a" * 200 + b"\r\nhello\r\n",
        b"5" + b"0" * 300,
        b"0\r\nX\r\n\r\n",
        b"0\r\n X: 1\r\n\r\n",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\nX: 1\n\r\n",
        b"0\r\n" + b"X: " + b"a" * MAX_TRAILER,
        b"0\r\n" + b"X: 1\r\n" * MAX_TRAILER,
        (b"1;" + b"a" * 200 + b"\r\nx\r\n") * 90,
        b"10000\r\n" + b"x" * 65536 + b"\r\n" + (b"1;" + b"a" * 200 + b"\r\nx\r\n") * 90,
    ],
)
def test_a_chunked_body_that_is_not_well_formed_is_refused(coded: bytes, step: int) -> None:
    with pytest.raises(FramingError):
        take(ChunkedBody(), coded, step)


@pytest.mark.parametrize("step", [1000, 1 << 20])
@pytest.mark.parametrize(
    "coded",
    [
        b"1\r\nx\r\n" * 30_000,  # written byte by byte
        b"18\r\n" + (b"x" * 24 + b"\r\n18\r\n") * 5000 + b"x" * 24 + b"\r\n",
        (b"f0\r\n" + b"x" * 240 + b"\r\n") * 5000,  # unbuffered gzip in Go
        (b"4000;chunk-signature=" + b"a" * 64 + b"\r\n" + b"x" * 16384 + b"\r\n") * 300,
    ],
)
def test_chunks_of_the_sizes_that_clients_send_pass(coded: bytes, step: int) -> None:
    body = ChunkedBody()
    assert set(take(body, coded + b"0\r\n\r\n", step)[0]) == {ord("x")}
    assert body.complete
