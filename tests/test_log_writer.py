"""The log writer: order, a slow reader, the end of the process."""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from registry import log_writer
from registry.log_writer import LogWriter
from tests.support.servers.launcher import Launched
from tests.support.servers.postgres import free_port

PIPE = 4096
"""The size of the pipes of these tests, in bytes."""

PATIENCE = 60.0


class AccessLine:
    """A line that the thread formats."""

    def __init__(self, number: int) -> None:
        self._number = number

    def format(self) -> str:
        return f"access {self._number}"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass(frozen=True)
class Pipe:
    """A pipe of `PIPE` bytes."""

    reader: int
    end: int


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, end = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, PIPE)
    yield Pipe(reader, end)
    for descriptor in (reader, end):
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def writer(pipe: Pipe) -> LogWriter:
    return LogWriter(pipe.end)


def read(reader: int, lines: int) -> list[str]:
    data = b""
    while data.count(b"\n") < lines:
        data += os.read(reader, 1 << 16)
    return data.decode().splitlines()


def test_a_command_writes_at_once(writer: LogWriter, capsys: pytest.CaptureFixture[str]) -> None:
    writer.write("first")
    assert capsys.readouterr().err == "first\n"


def test_lines_keep_their_order(pipe: Pipe, writer: LogWriter) -> None:
    writer.start(lambda: None)
    for number in range(20):
        writer.write_access(AccessLine(number))
        writer.write(f"record {number}")
    expected = [f"{kind} {number}" for number in range(20) for kind in ("access", "record")]
    assert read(pipe.reader, 40) == expected


def test_flush_writes_everything(pipe: Pipe, writer: LogWriter) -> None:
    writer.start(lambda: None)
    for number in range(10):
        writer.write_access(AccessLine(number))
    writer.flush()
    os.set_blocking(pipe.reader, False)
    assert len(os.read(pipe.reader, PIPE).splitlines()) == 10


def test_a_slow_reader_blocks_no_caller(
    pipe: Pipe, writer: LogWriter, caplog: pytest.LogCaptureFixture
) -> None:
    dropped: list[None] = []
    writer.start(lambda: dropped.append(None))
    for number in range(2 * log_writer.MAX_WAITING):
        writer.write_access(AccessLine(number))
    assert dropped
    writer.write("an error")  # access lines never displace other lines
    kept = 2 * log_writer.MAX_WAITING - len(dropped)
    written = read(pipe.reader, kept + 1)
    assert written[-1] == "an error"
    numbers = [int(line.removeprefix("access ")) for line in written[:kept]]
    assert numbers == sorted(set(numbers))
    wait_until(lambda: f"{len(dropped)} log lines were dropped" in caplog.text)


def test_the_pipe_of_these_tests_would_block(pipe: Pipe) -> None:
    """Without a thread, a caller waits for the reader."""
    os.set_blocking(pipe.end, False)
    assert os.write(pipe.end, b"x" * 2 * PIPE) == PIPE
    with pytest.raises(BlockingIOError):
        os.write(pipe.end, b"x")


def test_errors_are_limited_too(pipe: Pipe, writer: LogWriter) -> None:
    dropped: list[None] = []
    writer.start(lambda: dropped.append(None))
    for number in range(3 * log_writer.MAX_WAITING):
        writer.write(f"record {number}")
    assert dropped
    read(pipe.reader, 3 * log_writer.MAX_WAITING - len(dropped))


def test_a_closed_reader_is_ignored(pipe: Pipe, writer: LogWriter) -> None:
    os.close(pipe.reader)
    writer.start(lambda: None)
    writer.write("by the thread")
    writer.flush()


def test_lines_are_written_whole() -> None:
    """Processes that share a pipe mix what exceeds PIPE_BUF."""
    lines = [b"%04d %s\n" % (n, b"x" * (n * 37 % 1500)) for n in range(200)] + [b"y" * 9000 + b"\n"]
    chunks = list(log_writer._split(iter(lines)))
    assert b"".join(chunks) == b"".join(lines)
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    assert all(len(chunk) <= log_writer.ATOMIC for chunk in chunks[:-1])
    assert chunks[-1] == lines[-1]


PROGRAM = """
import sys
from registry import logs
from registry.log_writer import WRITER
logs.configure("text", "info", True)
logs.take_over()
WRITER.start(lambda: None)
class Line:
    def format(self):
        return "access " + "x" * 90
for _ in range(int(sys.argv[1])):
    WRITER.write_access(Line())
if sys.argv[2] == "crash":
    raise RuntimeError("crash report")
"""


@pytest.mark.parametrize("end", ["exit", "crash"])
def test_nothing_is_lost_at_the_end_of_the_process(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "300", end],
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert sum(line.startswith("access") for line in lines) == 300
    if end == "crash":
        assert "uncaught exception" in lines[300]
        assert lines[-1].endswith("RuntimeError: crash report")
    else:
        assert len(lines) == 300


def test_a_reader_that_never_reads_does_not_keep_the_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "3000", "exit"], stderr=subprocess.PIPE
    ) as process:
        assert process.wait(PATIENCE) == 0


def test_a_server_answers_while_nobody_reads_its_log(tmp_path: Path) -> None:
    """Standard error is a pipe, as under most supervisors, and its reader has stopped."""
    port = free_port()
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
    options = ["serve", "--listen", f"127.0.0.1:{port}", "--data", str(tmp_path / "data")]
    with (
        Launched(
            options,
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as http,
    ):

        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return http.get("/v2/").is_success
            return False

        wait_until(answers)
        for _ in range(600):  # 64 KiB of a pipe hold fewer lines
            assert http.get("/v2/").status_code == 200
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE)
        assert said.count(b"path=/v2/") >= 600
