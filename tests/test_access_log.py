"""Access lines: the format of log records, and protection from forged lines."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import access_log, logs

EVIL = 'a\nb\rc\x1b[31md\x00e\x7ff\x85g\x9bh\u2028i\u202ej\tk\ud800l" status=500'
AT = 1_795_461_120.123


def make_line(
    path: str = "/v2/", user_agent: str = "docker/27", principal: str = "-"
) -> access_log.AccessLine:
    return access_log.AccessLine(
        AT,
        "0123abcd",
        access_log.limit_request("GET", path),
        access_log.limit_caller("127.0.0.1", user_agent, principal),
        200,
        0.00125,
        0,
        2,
    )


def format_record(style: str, line: access_log.AccessLine) -> str:
    """Return the text of a log record with the same values."""
    logs.configure(style, "info", True)
    record = logging.getLogger("moorage.access").makeRecord(
        "moorage.access",
        logging.INFO,
        "",
        0,
        "request",
        (),
        None,
        extra={
            **line.request._asdict(),
            "status": line.status,
            "duration_ms": float(f"{line.seconds * 1000:.1f}"),
            "bytes_in": line.bytes_in,
            "bytes_out": line.bytes_out,
            **line.caller._asdict(),
        },
    )
    record.created, record.request_id = line.at, line.request_id
    (handler,) = (each for each in logging.getLogger().handlers if each.get_name() == "moorage")
    return handler.format(record)


def test_a_line_of_text() -> None:
    logs.configure("text", "info", True)
    assert make_line(user_agent="a b").format() == (
        "2026-11-23T19:12:00.123Z INFO  moorage.access request_id=0123abcd request method=GET"
        " path=/v2/ status=200 duration_ms=1.2 bytes_in=0 bytes_out=2 client=127.0.0.1"
        ' user_agent="a b" principal=-'
    )


def test_a_json_line() -> None:
    logs.configure("json", "info", True)
    assert json.loads(make_line().format()) == {
        "ts": "2026-11-23T19:12:00.123Z",
        "level": "info",
        "logger": "moorage.access",
        "message": "request",
        "request_id": "0123abcd",
        "method": "GET",
        "path": "/v2/",
        "status": 200,
        "duration_ms": 1.2,
        "bytes_in": 0,
        "bytes_out": 2,
        "client": "127.0.0.1",
        "user_agent": "docker/27",
        "principal": "-",
    }


@pytest.mark.parametrize("style", ["text", "json"])
@given(path=st.text(), user_agent=st.text(), principal=st.text())
def test_a_line_has_the_format_of_a_record(
    style: str, path: str, user_agent: str, principal: str
) -> None:
    line = make_line(path, user_agent, principal)
    expected = format_record(style, line)
    assert line.format() == expected


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_line_cannot_be_forged(style: str) -> None:
    line = make_line(EVIL, EVIL, EVIL)
    expected = format_record(style, line)
    assert line.format() == expected
    assert expected.isprintable()


@pytest.mark.parametrize("style", ["text", "json"])
def test_every_value_is_truncated(style: str) -> None:
    logs.configure(style, "info", True)
    long = "x" * (1 << 16)
    text = make_line(long, long, long).format()
    assert text.count("x" * (logs.LONGEST_FIELD - 1)) == 3
    assert "x" * logs.LONGEST_FIELD not in text


@pytest.mark.parametrize(
    ("level", "access", "enabled"),
    [("info", True, True), ("debug", True, True), ("warning", True, False), ("info", False, False)],
)
def test_when_lines_are_written(level: str, access: bool, enabled: bool) -> None:
    logs.configure("text", level, access)
    assert access_log.is_enabled() is enabled
