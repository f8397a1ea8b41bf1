"""Parsing of `Range` and `Content-Range`, without a server."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import RangeInvalidError, TooManyRangesError, UploadInvalidError
from registry.http.ranges import MOST_HEADER, MOST_RANGES, Part, parse_content_range, parse_ranges

HUGE = "9" * 5000  # more digits than Python converts to an integer

sizes = st.integers(0, 2**63 - 1)
positions = st.integers(0, 2**80)


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-9", (0, 10)),
        ("bytes=3-5", (3, 3)),
        ("bytes=3-3", (3, 1)),
        ("bytes=9-9", (9, 1)),
        ("bytes=9-10", (9, 1)),
        ("bytes=0-", (0, 10)),
        ("bytes=9-", (9, 1)),
        ("bytes=4-99999999999999999999", (4, 6)),
        ("bytes=-1", (9, 1)),
        ("bytes=-10", (0, 10)),
        ("bytes=-11", (0, 10)),
        ("bytes=0000000000000000000000000003-05", (3, 3)),
        ("BYTES=3-5", (3, 3)),
        ("bytes= 3-5 ", (3, 3)),
    ],
)
def test_2_one_range_is_a_part(header: str, part: Part) -> None:
    assert parse_ranges(header, 10) == [part]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=,",
        "bytes=0-1,x",
        "bytes=0-1,-",
        # More bytes than the blob has.
        "bytes=0-9,0-0",
        "bytes=0-5,5-9",
        "bytes=0-,0-",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1 -2",
        "bytes=0x1-2",
        "bytes=\u0661-\u0662",
        "bytes=\xb2-\xb3",
        "items=0-1",
        "0-1",
        "bytes 0-1",
        "bytes=0-1\n",
    ],
)
def test_2_what_is_not_one_range_gets_everything(header: str | None) -> None:
    assert parse_ranges(header, 10) == []


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("bytes=0-1,3-4", [(0, 2), (3, 2)]),
        ("bytes=3-4,0-1", [(3, 2), (0, 2)]),  # the order of the request is kept
        ("bytes=0-1,2-3,3-4", [(0, 2), (2, 2), (3, 2)]),  # adjacent ranges are not merged
        ("bytes=1-1,1-1,1-1", [(1, 1), (1, 1), (1, 1)]),
        ("bytes=0-0, -1", [(0, 1), (9, 1)]),
        ("bytes=0-0,\t9-", [(0, 1), (9, 1)]),
        ("bytes=0-4,5-9", [(0, 5), (5, 5)]),
        ("bytes=0-1,", [(0, 2)]),
        ("bytes=,0-1,,4-4", [(0, 2), (4, 1)]),
        ("bytes=0-1,10-12", [(0, 2)]),
    ],
)
def test_2_several_ranges_are_several_parts(header: str, parts: list[Part]) -> None:
    assert parse_ranges(header, 10) == parts


def test_2_as_many_ranges_as_podman_asks_for() -> None:
    most = [f"{100_000 + 3 * n}-{100_001 + 3 * n}" for n in range(MOST_RANGES)]
    header = f"bytes={','.join(most)}"
    assert len(header) < MOST_HEADER
    assert len(parse_ranges(header, 10**9)) == MOST_RANGES
    for more in (header + ",1-1", header + " " * MOST_HEADER, "bytes=1-1" + "," * MOST_HEADER):
        with pytest.raises(TooManyRangesError):
            parse_ranges(more, 10**9)


@pytest.mark.parametrize(
    "header",
    ["bytes=10-", "bytes=10-12", "bytes=5-4", "bytes=-0", "bytes=99999999999999999999999-",
     "bytes=10-,11-12", "bytes=0-1,5-4"],
)  # fmt: skip
def test_2_a_range_with_nothing_in_it_is_refused(header: str) -> None:
    with pytest.raises(RangeInvalidError) as refused:
        parse_ranges(header, 10)
    assert refused.value.size == 10


def test_2_numbers_beyond_all_sizes_are_numbers() -> None:
    assert parse_ranges(f"bytes=4-{HUGE}", 10) == [(4, 6)]
    assert parse_ranges(f"bytes=-{HUGE}", 10) == [(0, 10)]
    for header in (f"bytes={HUGE}-", f"bytes={HUGE}-{HUGE}", f"bytes={HUGE}-3"):
        with pytest.raises(RangeInvalidError):
            parse_ranges(header, 10)


def test_2_ranges_of_nothing() -> None:
    assert parse_ranges("bytes=-5", 0) == []  # satisfiable: RFC 9110 section 14.1.2
    for header in ("bytes=0-", "bytes=0-0"):
        with pytest.raises(RangeInvalidError):
            parse_ranges(header, 0)


@given(sizes, positions, positions | st.none())
def test_2_a_range_is_what_slicing_says(size: int, first: int, last: int | None) -> None:
    header = f"bytes={first}-{'' if last is None else last}"
    expected = range(size)[first : None if last is None else last + 1] if size else range(0)
    if len(expected):
        assert parse_ranges(header, size) == [(expected.start, len(expected))]
    else:
        with pytest.raises(RangeInvalidError):
            parse_ranges(header, size)


@given(st.integers(1, 2**63 - 1), st.integers(1, 2**80))
def test_2_a_suffix_is_what_slicing_says(size: int, length: int) -> None:
    expected = range(size)[-length:]
    assert parse_ranges(f"bytes=-{length}", size) == [(expected.start, len(expected))]


@given(st.text(alphabet="-,0123456789 \t*", max_size=30), st.integers(0, 200))
def test_2_no_text_gives_a_part_that_is_not_there(header: str, size: int) -> None:
    try:
        parts = parse_ranges(f"bytes={header}", size)
    except RangeInvalidError:
        return
    assert sum(length for _, length in parts) <= size
    for start, length in parts:
        assert length > 0
        assert start >= 0
        assert start + length <= size


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("0-0", (0, 1)),
        ("0-9", (0, 10)),
        ("5-9", (5, 5)),
        (" 5-9 ", (5, 5)),
        # The form of RFC 9110, which several clients use.
        ("bytes 5-9/10", (5, 5)),
        ("bytes 5-9/*", (5, 5)),
        ("Bytes 5-9/10", (5, 5)),
        ("bytes=5-9", (5, 5)),
    ],
)
def test_5_content_range_is_start_and_length(
    header: str | None, span: tuple[int, int] | None
) -> None:
    assert parse_content_range(header) == span


@pytest.mark.parametrize(
    "header",
    [
        "",
        "-",
        "0-",
        "-9",
        "9-5",
        "a-b",
        "0-9-12",
        "0 - 9",
        "bytes",
        "items 0-9/10",
        "bytes */10",
        "0x1-2",
        "\xb2-\xb3",
        "0-9\n1",
        "1.0-2",
        "+1-2",
        "-1-2",
    ],
)
def test_5_what_is_no_content_range_is_refused(header: str) -> None:
    with pytest.raises(UploadInvalidError) as refused:
        parse_content_range(header)
    assert refused.value.detail == {"content_range": header}


def test_5_a_refusal_does_not_repeat_a_long_header() -> None:
    with pytest.raises(UploadInvalidError) as refused:
        parse_content_range("x" * 10_000)
    assert len(str(refused.value.detail)) < 200


@given(sizes, st.integers(1, 2**40))
def test_5_content_range_comes_back(start: int, length: int) -> None:
    assert parse_content_range(f"{start}-{start + length - 1}") == (start, length)


def test_5_a_start_beyond_all_numbers_is_still_a_start() -> None:
    """It is out of order, like any other wrong start, and not a syntax error."""
    span = parse_content_range(f"{HUGE}-{HUGE}")
    assert span is not None
    assert span[0] > 2**63


@given(st.text(alphabet=string.printable, max_size=40))
def test_5_any_text_is_a_span_or_refused(header: str) -> None:
    try:
        span = parse_content_range(header)
    except UploadInvalidError:
        return
    assert span is not None
    assert span[0] >= 0
    assert span[1] > 0
