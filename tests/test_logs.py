"""Log lines in both formats, protection from forged lines, and the clock of the timestamps."""

import asyncio
import json
import logging
import re
import time
from typing import Any

import pytest

from registry import clock, logs

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ +[\w.]+ ")
EVIL = "a\nb\rc\x1b[31md\x00e\x7ff\x85g\x9bh\u2028i\u202ej\tk\ud800l"
ESCAPED = r"a\nb\rc\x1b[31md\x00e\x7ff\x85g\x9bh\u2028i\u202ej\tk\ud800l"

api = logging.getLogger("registry.api")
access = logging.getLogger("moorage.access")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert not out
    return err.removesuffix("\n").split("\n") if err else []


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(capsys)]


def fail_with(message: str) -> None:
    raise ValueError(message)


def fail() -> None:
    raise RuntimeError("first\n2026-01-01T00:00:00.000Z INFO  registry.api forged\x1b")


# Text


def test_a_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info", True)
    api.info("pushed %s", "app")
    (line,) = lines(capsys)
    assert re.fullmatch(LINE.pattern + "pushed app", line)
    assert " INFO  registry.api " in line


def test_the_time_is_utc(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        logs.configure("text", "info", True)
        record = api.makeRecord("registry.api", logging.INFO, "", 0, "hello", (), None)
        record.created, record.msecs = 1_795_461_120.123, 123.0
        api.handle(record)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert lines(capsys) == ["2026-11-23T19:12:00.123Z INFO  registry.api hello"]


def test_extras_are_pairs_that_cannot_be_mistaken(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info", True)
    access.info(
        "request",
        extra={
            "method": "GET",
            "path": "/v2/",
            "status": 200,
            "duration_ms": 1.25,
            "user_agent": 'x" status=500\n',
            "principal": None,
            "client": "",
        },
    )
    (line,) = lines(capsys)
    assert line.endswith(
        "INFO  moorage.access request method=GET path=/v2/ status=200 duration_ms=1.25"
        r' user_agent="x\" status=500\n" principal=- client=""'
    )


def test_text_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info", True)
    api.info("%s", EVIL)
    api.info("bare", extra={"path": EVIL.replace("\n", "").replace("\t", "")})
    message, extra = lines(capsys)
    assert message.endswith(ESCAPED)
    assert extra.isprintable()


def test_a_traceback_cannot_be_taken_for_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info", True)
    try:
        fail()
    except RuntimeError:
        api.exception("failed", stack_info=True)
    first, *rest = lines(capsys)
    assert first.endswith(" ERROR registry.api failed")
    assert rest[0] == "  | Traceback (most recent call last):"
    assert r"  | 2026-01-01T00:00:00.000Z INFO  registry.api forged\x1b" in rest
    assert any(line.startswith("  | Stack (most recent call last)") for line in rest)
    assert all(line.startswith("  | ") for line in rest)


# JSON


def test_a_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", True)
    api.warning("pushed %s", "app", extra={"size": 5, "networks": {1}, "ts": "forged"})
    (line,) = objects(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "warning",
        "logger": "registry.api",
        "message": "pushed app",
        "size": 5,
        "networks": "{1}",
    }


def test_json_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", True)
    api.info("%s", EVIL, extra={"path": EVIL})
    (line,) = lines(capsys)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == json.loads(line)["path"] == EVIL


def test_a_json_line_holds_its_exception(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", True)
    try:
        fail()
    except RuntimeError:
        api.exception("failed", stack_info=True)
    (line,) = objects(capsys)
    assert line["message"] == "failed"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert "RuntimeError: first\n" in line["exception"]
    assert line["stack"].startswith("Stack")


# Request ids


async def serve(name: str) -> None:
    logs.request_id.set(name)
    await asyncio.sleep(0)
    await asyncio.to_thread(api.info, name)


@pytest.mark.anyio
async def test_every_line_has_the_id_of_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", True)
    await asyncio.gather(*(serve(f"request-{n}") for n in range(5)))
    logging.getLogger("uvicorn.error").info("none")
    *requests, outside = objects(capsys)
    assert len(requests) == 5
    assert all(line["request_id"] == line["message"] for line in requests)
    assert "request_id" not in outside


def test_the_id_in_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info", True)
    token = logs.request_id.set("a b\n")
    api.info("hello")
    logs.request_id.reset(token)
    api.info("hello", extra={"request_id": "other"})
    first, second = lines(capsys)
    assert first.endswith(r' registry.api request_id="a b\n" hello')
    assert second.endswith(" registry.api request_id=other hello")


# Levels and loggers


def test_the_level_is_the_least_that_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "warning", True)
    api.info("no")
    access.info("no")
    logging.getLogger("httpx").info("no")
    api.warning("yes")
    assert len(lines(capsys)) == 1


def test_debug_is_for_our_own_modules(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "debug", True)
    for name in (
        "registry.api",
        "storage.local.driver",
        "moorage.access",
        "botocore.auth",
        "uvicorn",
    ):
        logging.getLogger(name).debug("hello")
    written = [line["logger"] for line in objects(capsys)]
    assert written == ["registry.api", "storage.local.driver", "moorage.access"]


def test_access_lines_can_be_switched_off_and_on(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info", False)
    assert not access.isEnabledFor(logging.INFO)
    access.info("no")
    logs.configure("text", "info", True)
    access.info("yes")
    assert len(lines(capsys)) == 1


def test_uvicorn_speaks_through_our_handler_alone(capsys: pytest.CaptureFixture[str]) -> None:
    uvicorn = logging.getLogger("uvicorn")
    uvicorn.propagate = False
    uvicorn.addHandler(logging.StreamHandler())
    logs.configure("json", "info", True)
    logging.getLogger("uvicorn.error").info("up", extra={"color_message": "\x1b[1mup"})
    logging.getLogger("uvicorn.access").info("no")
    (line,) = objects(capsys)
    assert line.keys() == {"ts", "level", "logger", "message"}


def test_a_second_call_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info", True)
    before = len(logging.getLogger().handlers)
    logs.configure("json", "info", True)
    assert len(logging.getLogger().handlers) == before
    api.info("once")
    assert len(objects(capsys)) == 1


# Length: a client must not control how fast the log grows.


LONG = "x" * (1 << 20)


@pytest.mark.parametrize("style", ["text", "json"])
def test_every_field_is_cut(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(style, "info", True)
    fields = dict.fromkeys(("path", "user_agent", "method", "client", "principal"), LONG)
    access.info("request", extra=fields)
    api.error("refused %s for %s", LONG, "alice")
    api.error("failed: %s", ValueError(LONG))
    api.error("failed: %(what)s", {"what": LONG})
    line, refused, *failed = lines(capsys)
    assert len(line) < 5 * (logs.LONGEST_FIELD + 30) + 200
    assert line.count("x" * (logs.LONGEST_FIELD - 1)) == 5
    assert "x" * logs.LONGEST_FIELD not in line
    assert len(refused) < logs.LONGEST_FIELD + 300
    assert " for alice" in refused
    assert all(len(each) < logs.LONGEST_MESSAGE + 300 for each in failed)


@pytest.mark.parametrize("style", ["text", "json"])
def test_tracebacks_are_cut(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(style, "info", True)
    for message in (LONG, "y\n" * 100_000):
        try:
            fail_with(message)
        except ValueError:
            api.exception("failed")
    out = capsys.readouterr().err
    assert len(out) < 3 * logs.LONGEST_MESSAGE + 30 * logs.MOST_LINES
    assert out.count("Traceback") == 2  # The beginning of the traceback is kept.


# The clock


def test_now_is_in_microseconds() -> None:
    before = time.time()
    now = clock.now_us()
    assert before - 1 < now / 1_000_000 < time.time() + 1


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_795_461_120_123_456, "2026-11-23T19:12:00.123456Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_moments_are_written_exactly(us: int, text: str) -> None:
    assert clock.rfc3339(us) == text
