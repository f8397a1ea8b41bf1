"""Multipart bodies, without a server. `test_blobs.py` tests the responses."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.http.multipart import FLUSH, GAP, Multipart
from registry.http.ranges import Part, parse_ranges
from storage.errors import ObjectCorruptError
from tests.support.kit import read_parts


@dataclass
class Pieces:
    """Open object that is read in chunks of any size and records the reads."""

    data: bytes
    piece: int
    size: int = 0
    reads: list[Part] = field(default_factory=list)
    file: None = None

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        self.reads.append((start, length))
        for at in range(start, start + length, self.piece):
            end = min(at + self.piece, start + length)
            if end > len(self.data):
                raise ObjectCorruptError("the object ends early")
            yield self.data[at:end]

    async def close(self) -> None:
        """Do nothing."""


async def collect(body: Multipart, reader: Pieces) -> list[bytes]:
    return [piece async for piece in body.iter_body(reader)]


def run(body: Multipart, reader: Pieces) -> list[bytes]:
    """Run the body to its end. It never waits for anything."""
    work = collect(body, reader)
    with pytest.raises(StopIteration) as done:
        work.send(None)
    found: list[bytes] = done.value.value
    return found


@st.composite
def blobs_with_parts(draw: st.DrawFn) -> tuple[bytes, list[Part]]:
    data = draw(st.binary(min_size=1, max_size=300))
    places = st.integers(0, len(data) - 1)
    ends = draw(st.lists(st.tuples(places, places), min_size=1, max_size=12))
    return data, [(min(pair), max(pair) - min(pair) + 1) for pair in ends]


@given(blobs_with_parts(), st.integers(1, 400), st.integers(0, 20))
def test_2_each_part_is_there_once_and_in_order(
    case: tuple[bytes, list[Part]], piece: int, gap: int
) -> None:
    data, parts = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("registry.http.multipart.GAP", gap)
        body = Multipart(parts, len(data))
        reader = Pieces(data, piece)
        raw = b"".join(run(body, reader))
        assert reader.reads[0] == body.first_span
    assert len(raw) == body.length
    assert read_parts(body.media_type, raw) == [
        (f"bytes {start}-{start + length - 1}/{len(data)}", data[start : start + length])
        for start, length in parts
    ]
    dropped = sum(length for _, length in reader.reads) - sum(length for _, length in parts)
    assert 0 <= dropped <= gap * (len(parts) - 1)


def test_2_many_small_parts_are_few_reads_and_few_pieces() -> None:
    data = bytes(2_000_000)
    near = [(n * 1500, 100) for n in range(1024)]
    reader = Pieces(data, 1 << 20)
    pieces = run(Multipart(near, len(data)), reader)
    assert len(reader.reads) == 1
    assert len(pieces) < 5
    far = [(0, 1), (GAP + 1, 1), (2 * GAP + 3, 1), (GAP, 1), (5, 1)]
    reader = Pieces(data, 1 << 20)
    run(Multipart(far, len(data)), reader)
    # A gap that is too wide, and each step back, need another read.
    assert reader.reads == [(0, GAP + 2), (2 * GAP + 3, 1), (GAP, 1), (5, 1)]


def test_2_what_waits_does_not_grow_with_the_parts() -> None:
    data, piece = bytes(8 << 20), 64 * 1024
    pieces = run(Multipart([(0, 7 << 20), (1, 1 << 20)], len(data)), Pieces(data, piece))
    assert max(map(len, pieces)) < FLUSH + piece + 1024


def test_2_an_object_that_ends_early_is_no_whole_body() -> None:
    with pytest.raises(ObjectCorruptError):
        collect(Multipart([(0, 5), (90, 20)], 110), Pieces(bytes(100), 10)).send(None)


def test_2_boundaries_are_not_foreseen() -> None:
    parts = parse_ranges("bytes=0-1,3-4", 10)
    assert len({Multipart(parts, 10).boundary for _ in range(50)}) == 50
