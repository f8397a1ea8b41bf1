"""Tests of quota warnings in headers."""

from starlette.responses import Response

from registry.api.v2.quota_warnings import MAX_BYTES, add_warnings


def written(*texts: str) -> list[str]:
    response = Response()
    add_warnings(response, texts)
    return response.headers.getlist("Warning")


def test_each_is_a_header_of_the_form_that_the_specification_asks_for() -> None:
    assert written() == []
    assert written("one", "two") == ['299 - "one"', '299 - "two"']


def test_what_is_no_text_of_a_header_is_written_so_that_it_is() -> None:
    assert written('say "a\\b"') == ['299 - "say \\"a\\\\b\\""']
    assert written("line\r\nX-Evil: ä\0") == ['299 - "line??X-Evil: ??"']


def test_there_are_no_more_than_clients_must_take() -> None:
    long = "x" * 1500
    assert len(written(long, long, long)) == 2
    assert sum(map(len, written(*(["text"] * 9999)))) < MAX_BYTES
    assert written("x" * MAX_BYTES) == []
