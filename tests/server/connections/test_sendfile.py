"""Files in responses, which the server sends with sendfile(2)."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from registry.http.sendfile import SENDFILE
from tests.server.connections.conftest import LIMITS
from tests.support.kit import list_open_files
from tests.support.servers.http_server import Served, answer_lifespan, serving_app, wait_until
from tests.support.servers.raw import Wire

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = 48 << 20
"""More than the kernel buffers for a client."""


@dataclass
class FileApp:
    """Application whose response consists of `parts`: bytes, or a range of the file."""

    path: Path
    parts: list[bytes | tuple[int | None, int | None]]
    length: int | None
    errors: list[BaseException] = field(default_factory=list)
    offered: bool = False
    ended: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        self.offered = SENDFILE in scope["extensions"]
        sizes = [] if self.length is None else [(b"content-length", str(self.length).encode())]
        with self.path.open("rb", buffering=0) as file:
            try:
                await send({"type": "http.response.start", "status": 200, "headers": sizes})
                for number, part in enumerate(self.parts, start=1):
                    more = {"more_body": number < len(self.parts)}
                    if isinstance(part, bytes):
                        await send({"type": "http.response.body", "body": part, **more})
                    else:
                        span = {"offset": part[0], "count": part[1]}
                        await send({"type": SENDFILE, "file": file, **span, **more})
            except BaseException as error:
                self.errors.append(error)
                raise
            finally:
                self.ended += 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(LARGE))
    return path


def whole(path: Path) -> FileApp:
    return FileApp(path, [(0, LARGE)], LARGE)


async def read_all(app: FileApp, request: bytes, size: int) -> bytes:
    """Return the first `size` bytes of the answers, and fail if more follow."""
    async with serving_app(app, LIMITS) as served:
        wire = await Wire.open(served.port)
        await wire.send(request)
        answer = await wire.reader.readexactly(size)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await wire.reader.read(1)
        wire.abort()
    return answer


async def find_head(app: FileApp) -> bytes:
    async with serving_app(app, LIMITS) as served:
        wire = await Wire.open(served.port)
        await wire.send(GET)
        head = await wire.reader.readuntil(b"\r\n\r\n")
        wire.abort()
    return head


@pytest.mark.parametrize("without", [None, errno.EINVAL, errno.ENOSYS])
async def test_pipelined_files_arrive_in_order_and_keep_the_connection(
    path: Path, monkeypatch: pytest.MonkeyPatch, without: int | None
) -> None:
    """A file system without sendfile(2) changes nothing."""
    if without is not None:

        def refuse(*_: object) -> int:
            raise OSError(without, "made up")

        monkeypatch.setattr(os, "sendfile", refuse)
    app = FileApp(path, [(1, 3 << 20)], 3 << 20)
    size = len(await find_head(app))
    answers = await read_all(app, GET * 3, 3 * (size + (3 << 20)))
    data = path.read_bytes()[1 : 1 + (3 << 20)]
    for number in range(3):
        start = number * (size + len(data))
        assert answers[start : start + 13] == b"HTTP/1.1 200 "
        assert answers[start + size : start + size + len(data)] == data
    assert app.offered


async def test_a_file_between_bytes(path: Path) -> None:
    app = FileApp(path, [b"before", (5, 1 << 20), (LARGE - 1, 1), b"after"], 12 + (1 << 20))
    size = len(await find_head(app))
    answer = await read_all(app, GET, size + 12 + (1 << 20))
    data = path.read_bytes()
    assert answer[size:] == b"before" + data[5 : 5 + (1 << 20)] + data[-1:] + b"after"


async def test_a_file_of_unknown_length_is_chunked(path: Path) -> None:
    os.truncate(path, 100_000)
    app = FileApp(path, [b"ab", (None, None)], None)
    size = len(await find_head(app))
    answer = await read_all(app, GET, size + 7 + 7 + 100_000 + 2 + 5)
    data = path.read_bytes()
    assert answer[size:] == b"2\r\nab\r\n186a0\r\n" + data + b"\r\n0\r\n\r\n"


async def test_head_sends_no_file(path: Path) -> None:
    app = whole(path)
    size = len(await find_head(FileApp(path, [(0, LARGE)], LARGE)))
    answer = await read_all(app, GET.replace(b"GET", b"HEAD") * 2, 2 * size)
    assert answer.endswith(b"\r\n\r\n")
    assert app.ended == 2


async def test_more_than_announced_is_cut(path: Path) -> None:
    app = FileApp(path, [(0, 11)], 10)
    async with serving_app(app, LIMITS) as served:
        wire = await Wire.open(served.port)
        await wire.send(GET)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await wire.reader.readexactly(1 << 20)
        wire.abort()
    assert isinstance(app.errors[0], RuntimeError)


async def on_a_paused_client(app: FileApp, act: Callable[[Served, Wire], Awaitable[None]]) -> None:
    """Call `act` while the response is being sent to a client that does not read."""
    async with serving_app(app, LIMITS, drain=0) as served:
        wire = await Wire.open(served.port)
        await wire.send(GET)
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined] # no public way
        await asyncio.sleep(0.1)
        assert app.ended == 0
        await act(served, wire)
        await wait_until(lambda: app.ended == 1)
        await wait_until(lambda: not served.server.server_state.connections)
        wire.abort()
    assert list_open_files(app.path) == []


async def require_cut(wire: Wire) -> None:
    """Read on, and require that the body ends early."""
    wire.reader._transport.resume_reading()  # type: ignore[attr-defined] # no public way
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await wire.reader.readexactly(LARGE)


@pytest.mark.parametrize("pipelined", [False, True])
async def test_a_client_that_vanishes_is_no_fault_of_the_file(path: Path, pipelined: bool) -> None:
    app = whole(path)

    async def vanish(_: Served, wire: Wire) -> None:
        if pipelined:  # the server then does not read, and finds the end only as it sends
            await wire.send(GET)
            await asyncio.sleep(0.05)
        wire.abort()

    await on_a_paused_client(app, vanish)
    assert app.errors == []


async def test_a_client_that_does_not_read_is_cut(path: Path) -> None:
    app = whole(path)

    async def wait(*_: object) -> None:
        await asyncio.sleep(0)

    await on_a_paused_client(app, wait)
    assert app.errors == []


async def test_a_client_that_reads_slowly_is_not_cut(path: Path) -> None:
    async with serving_app(whole(path), LIMITS) as served:
        wire = await Wire.open(served.port)
        await wire.send(GET)
        await wire.reader.readuntil(b"\r\n\r\n")
        data = path.read_bytes()
        for number in range(20):
            piece = await wire.reader.readexactly(64 << 10)
            assert piece == data[number * len(piece) : (number + 1) * len(piece)]
            await asyncio.sleep(0.1)
        assert await wire.reader.readexactly(LARGE - (20 * (64 << 10))) == data[20 * (64 << 10) :]
        wire.abort()


async def test_a_stop_cuts_a_file_after_the_drain_time(path: Path) -> None:
    app = whole(path)

    async def stop(served: Served, _: Wire) -> None:
        for task in served.server.server_state.tasks:
            task.cancel()

    await on_a_paused_client(app, stop)
    assert isinstance(app.errors[0], asyncio.CancelledError)


async def test_a_file_that_ends_early_cuts_the_connection(path: Path) -> None:
    app = whole(path)

    async def cut(_: Served, wire: Wire) -> None:
        os.truncate(path, LARGE - 1)
        await require_cut(wire)

    await on_a_paused_client(app, cut)
    assert isinstance(app.errors[0], EOFError)


async def test_a_file_that_cannot_be_read_cuts_the_connection(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = whole(path)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "made up")

    async def break_disk(_: Served, wire: Wire) -> None:
        monkeypatch.setattr(os, "sendfile", fail)
        monkeypatch.setattr(os, "pread", fail)
        await require_cut(wire)

    await on_a_paused_client(app, break_disk)
    assert isinstance(app.errors[0], EOFError)
    assert isinstance(app.errors[0].__cause__, OSError)


async def test_without_descriptors_files_are_sent(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, "made up")

    monkeypatch.setattr(os, "dup", fail)
    app = FileApp(path, [(0, 1 << 20)], 1 << 20)
    size = len(await find_head(app))
    answer = await read_all(app, GET, size + (1 << 20))
    assert answer[size:] == path.read_bytes()[: 1 << 20]
