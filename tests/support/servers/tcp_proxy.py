"""A TCP proxy on loopback that simulates faults of networks and servers.

It is independent of the protocol: PostgreSQL, S3 and HTTP work alike. The proxy runs on its own
thread, so a test may block its event loop. Every method can be called from any thread, and has
taken effect when it returns.

    with tcp_proxy(("127.0.0.1", cluster.port)) as proxy:
        proxy.refuse()  # a killed server: connections are refused, open ones are reset
        proxy.accept()  # the server is back, at the same port
        proxy.stall()   # a frozen server: connections are accepted and kept, no bytes pass
        proxy.resume()  # bytes that were held back arrive now
        proxy.delay(0.2)  # each chunk arrives 0.2 seconds later, in both directions
        proxy.cut()     # open connections are reset, new ones are accepted
        lost = proxy.lose_answer(b"COMMIT")  # see `TcpProxy.lose_answer`
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
"""SO_LINGER with a timeout of zero, with which closing a socket resets the connection."""


@dataclass(frozen=True)
class _Trap:
    """Trap that cuts the connection on which a client sends `words`, and then sets `sprung`."""

    words: bytes
    delivered: bool
    sprung: threading.Event


class TcpProxy:
    """A running proxy, which listens on `port` of 127.0.0.1."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.port = 0
        self.taken = 0
        """Number of connections accepted so far."""
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
        """Number of open connections."""
        return len(self._tasks)

    def accept(self) -> None:
        """Listen on the same port as before."""
        self._do(self._accept)

    def refuse(self) -> None:
        """Stop listening and reset open connections."""
        self._do(self._refuse)

    def cut(self) -> None:
        """Reset open connections. New connections are accepted."""
        self._do(self._cut)

    def stall(self) -> None:
        """Accept connections and bytes, but forward nothing until `resume`."""
        self._do(self._set_flowing, False)

    def resume(self) -> None:
        self._do(self._set_flowing, True)

    def delay(self, seconds: float) -> None:
        """Delay each chunk of bytes by `seconds`; 0 ends the delay."""
        self._delay = seconds

    def lose_answer(self, words: bytes, *, delivered: bool = True) -> threading.Event:
        """Cut the next connection on which a client sends a chunk with `words` in it, once.

        If `delivered`, the chunk is forwarded, and the connection is cut when the target responds,
        before any byte of the response passes. The target has then done work that the client does
        not know about. Otherwise the connection is cut before the target gets the chunk. The
        returned event is set when the connection is cut.
        """
        trap = _Trap(words, delivered, threading.Event())
        self._do(self._add_trap, trap)
        return trap.sprung

    def close(self) -> None:
        """Reset all connections and end the thread of the proxy."""
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # The methods below, except `_do`, run on the thread of the proxy.

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
        """Forward bytes in both directions until both have ended. Reset both ends on failure."""
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
            pass  # one end has gone, and the reset tells the other end
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
        """Remove and return the traps that `data` triggers."""
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
    """Run a proxy in front of `target` on a free port."""
    proxy = TcpProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
