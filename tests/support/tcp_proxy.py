"""A TCP proxy on loopback that does to connections what networks and dying servers do.

It knows no protocol: PostgreSQL, S3 and HTTP go through alike. All of it runs on one thread, so a
test may block its own loop meanwhile; every method may be called from any thread and has taken
effect when it returns.

    with tcp_proxy(("127.0.0.1", cluster.port)) as proxy:
        proxy.refuse()  # nobody listens, open connections are reset: a killed server
        proxy.accept()  # it is back, at the same port
        proxy.stall()   # connections are taken and kept, nothing passes: a frozen server
        proxy.resume()  # what was sent meanwhile arrives now
        proxy.delay(0.2)  # each piece of bytes arrives so much later, either way
        proxy.cut()     # open connections are reset, new ones are taken
        lost = proxy.lose_answer(b"COMMIT")  # see there
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

PIECE = 1 << 16
_RESET = struct.pack("ii", 1, 0)
"""Linger on, for no time: close resets."""


@dataclass(frozen=True)
class _Trap:
    """Waits for a client to send `words`; then its connection is cut, and `sprung` is set."""

    words: bytes
    delivered: bool
    sprung: threading.Event


class TcpProxy:
    """A proxy that runs; `port` is where it listens, on 127.0.0.1."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.port = 0
        self.taken = 0
        """Connections taken so far."""
        self._delay = 0.0
        self._traps: list[_Trap] = []
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.accept()

    @property
    def open(self) -> int:
        """Connections open now."""
        return len(self._tasks)

    def accept(self) -> None:
        """Listen, at the same port as before."""
        self._do(self._accept)

    def refuse(self) -> None:
        """Listen no more, and reset what is open."""
        self._do(self._refuse)

    def cut(self) -> None:
        """Reset what is open; new connections are taken."""
        self._do(self._cut)

    def stall(self) -> None:
        """Take connections and bytes, and let nothing pass until `resume`."""
        self._do(self._set_flowing, False)

    def resume(self) -> None:
        self._do(self._set_flowing, True)

    def delay(self, seconds: float) -> None:
        """Let each piece of bytes arrive so much later; 0 as before."""
        self._delay = seconds

    def lose_answer(self, words: bytes, *, delivered: bool = True) -> threading.Event:
        """Cut the next connection on which a client sends a piece with `words` in it, once.

        The piece is delivered, and the connection cut when the target has answered, before any of
        that answer passes: the target has done what the client will never know of. Not
        `delivered`: cut before the target sees it. The event says that it has happened.
        """
        trap = _Trap(words, delivered, threading.Event())
        self._do(self._add_trap, trap)
        return trap.sprung

    def close(self) -> None:
        """End it all."""
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # From here on: on the proxy's own thread.

    def _do(self, method: Callable[..., Awaitable[None]], *arguments: object) -> None:
        async def job() -> None:
            await method(*arguments)

        asyncio.run_coroutine_threadsafe(job(), self._loop).result(10)

    async def _set_flowing(self, flowing: bool) -> None:
        if flowing:
            self._flowing.set()
        else:
            self._flowing.clear()

    async def _add_trap(self, trap: _Trap) -> None:
        self._traps.append(trap)

    async def _accept(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]
            self._accepting = asyncio.create_task(self._take(self._listener))

    async def _refuse(self) -> None:
        if self._accepting is not None and self._listener is not None:
            await _end(self._accepting)
            self._listener.close()
            self._listener = None
        await self._cut()

    async def _cut(self) -> None:
        for task in list(self._tasks):
            await _end(task)

    async def _take(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            client.setblocking(False)
            self.taken += 1
            task = asyncio.create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        """Pass bytes both ways until both have ended; cancelled or failing, reset both."""
        server = socket.socket()
        server.setblocking(False)
        whole = False
        try:
            await self._flowing.wait()
            await self._loop.sock_connect(server, self.target)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sprung: list[_Trap] = []
            pumps = [
                asyncio.create_task(self._pump(client, server, sprung, is_client=True)),
                asyncio.create_task(self._pump(server, client, sprung, is_client=False)),
            ]
            try:
                await asyncio.gather(*pumps)
                whole = True
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # one end has gone: the other learns it by the reset
        finally:
            for each in (client, server):
                if not whole:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                each.close()

    async def _pump(
        self, source: socket.socket, sink: socket.socket, sprung: list[_Trap], *, is_client: bool
    ) -> None:
        while data := await self._loop.sock_recv(source, PIECE):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._flowing.wait()
            if is_client:
                sprung += self._spring(data)
                if any(not trap.delivered for trap in sprung):
                    self._finish(sprung)
            elif sprung:
                self._finish(sprung)
            await self._loop.sock_sendall(sink, data)
        await self._flowing.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _spring(self, data: bytes) -> list[_Trap]:
        """The traps that `data` springs, which are traps no more."""
        sprung = [trap for trap in self._traps if trap.words in data]
        self._traps = [trap for trap in self._traps if trap not in sprung]
        return sprung

    @staticmethod
    def _finish(sprung: list[_Trap]) -> None:
        for trap in sprung:
            trap.sprung.set()
        raise ConnectionAbortedError


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@contextlib.contextmanager
def tcp_proxy(target: tuple[str, int]) -> Iterator[TcpProxy]:
    """A proxy before `target`, on a free port."""
    proxy = TcpProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
