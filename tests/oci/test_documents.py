"""Strict JSON: documents that two parsers could read differently are refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ManifestInvalidError
from registry.oci.documents import annotations_of, list_of, media_type_of, read_document

FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), VALUES), st.booleans(), st.sampled_from([None, 2]))
def test_reads_what_json_writes(document: object, escape: bool, indent: int | None) -> None:
    text = json.dumps(document, ensure_ascii=escape, indent=indent)
    assert read_document(text.encode()) == document


@given(st.binary() | st.text(alphabet='{}[]":,\\u0d8ntf-1e. ').map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        document = read_document(raw)
    except ManifestInvalidError:
        return
    assert isinstance(document, dict)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b'{"a":01}', "not JSON"),
        (b'{"a":"\n"}', "not JSON"),
        (b'{"a":NaN}', "not JSON: NaN"),
        (b'{"a":[Infinity]}', "not JSON: Infinity"),
        (b'{"a":-Infinity}', "not JSON: -Infinity"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "not UTF-8"),
        ("{}".encode("utf-16-le"), "not JSON"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a":"\xc0\x80"}', "not UTF-8"),
        (b"[]", "must be an object"),
        (b"null", "must be an object"),
        (b'"a"', "must be an object"),
        (b"2", "must be an object"),
        (b'{"a":' + b"1" * 5000 + b"}", "too long"),
        (b'{"a":-' + b"1" * 5000 + b"}", "too long"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a":' * 201 + b"1" + b"}" * 201, "nested too deeply"),
        (b'{"a":[' + b",".join([b"{}"] * 100_000) + b"]}", "more than 100000 JSON objects"),
        (b'{"a":[' + b",".join([b'""'] * 500_000) + b"]}", "more than 500000 JSON strings"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b'{"a":1,"a":1}', "'a' twice"),
        (b'{"a":[{"b":{"c":1,"d":2,"c":3}}]}', "'c' twice"),
        (b'{"a":1,"\\u0061":2}', "'a' twice"),
        (b'{"\\ud800":1,"\\uD800":2}', r"'\\ud800' twice"),
    ],
)
def test_refuses_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(ManifestInvalidError, match=reason) as caught:
        read_document(raw)
    assert caught.value.message.isascii()


def test_brackets_in_strings_are_not_counted() -> None:
    text = '"[{' * 200_000
    document = {"a": text, "b": [[text], {"c": text}]}
    assert read_document(json.dumps(document).encode()) == document
    depth = 199
    nested = b'{"' + b"[" * 1000 + b'":' + b"[" * depth + b"]" * depth + b"}"
    assert list(read_document(nested)) == ["[" * 1000]


@pytest.mark.timeout(10, func_only=True)
@pytest.mark.parametrize("unit", ["[{", '"[', '"\\[', '\\"[', '"\\', '""', "\\["])
@pytest.mark.parametrize("start", ["", '{"a":"', '"'])
def test_no_text_takes_long_to_count(start: str, unit: str) -> None:
    """A regular expression that backtracks at each quote would take an hour."""
    raw = (start + unit * (1_000_000 // len(unit))).encode() + b"{" * 300
    with pytest.raises(ManifestInvalidError):
        read_document(raw)


@pytest.mark.timeout(10, func_only=True)
def test_finds_one_double_key_among_many() -> None:
    keys = ",".join(f'"{number}":0' for number in range(300_000))
    with pytest.raises(ManifestInvalidError, match="'299999' twice"):
        read_document(f'{{{keys},"299999":0}}'.encode())


def test_the_message_on_a_long_key_is_short() -> None:
    key = "k" * 100_000
    with pytest.raises(ManifestInvalidError) as caught:
        read_document(f'{{"{key}":1,"{key}":2}}'.encode())
    assert len(caught.value.message) < 200


def test_keys_that_differ_in_case_are_two_keys() -> None:
    assert read_document(b'{"a":1,"A":2}') == {"a": 1, "A": 2}


def test_a_missing_or_null_list_is_empty() -> None:
    assert list_of({}, "layers") == list_of({"layers": None}, "layers") == []
    with pytest.raises(ManifestInvalidError, match="layers must be a list"):
        list_of({"layers": {}}, "layers")


@pytest.mark.parametrize("fields", [{}, {"mediaType": None}, {"mediaType": ""}])
def test_no_media_type(fields: dict[str, object]) -> None:
    assert media_type_of(fields, "mediaType") is None


@pytest.mark.parametrize("value", [0, False, [], {}, "a\x00b", "a\nb", "a\x7f", "a" * 256])
def test_refuses_a_media_type_that_rows_and_headers_cannot_hold(value: object) -> None:
    with pytest.raises(ManifestInvalidError, match=r"^config\.mediaType "):
        media_type_of({"mediaType": value}, "mediaType", "config")


@given(st.dictionaries(st.text(), st.text()))
def test_annotations_can_always_be_encoded(annotations: dict[str, str]) -> None:
    document = read_document(json.dumps({"annotations": annotations}).encode())
    assert annotations_of(document) == annotations


def test_lone_surrogates_become_replacement_characters() -> None:
    document = read_document(
        b'{"mediaType":"a/\\udc00","annotations":{"\\ud800":"\\udfffx","p":"\\ud83d\\ude00"}}'
    )
    assert media_type_of(document, "mediaType") == "a/\ufffd"
    assert annotations_of(document) == {"\ufffd": "\ufffdx", "p": "\U0001f600"}


@pytest.mark.parametrize("value", [[], "a", 1, {"a": 1}, {"a": None}, {"a": ["b"]}])
def test_refuses_annotations_that_are_no_map_of_strings(value: object) -> None:
    with pytest.raises(ManifestInvalidError, match=r"subject\.annotations"):
        annotations_of({"annotations": value}, "subject")
