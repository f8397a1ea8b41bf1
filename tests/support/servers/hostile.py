"""A server on loopback that sends raw bytes, and records everything that it receives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]

HEADS = 64 << 10


@dataclass
class Hostile:
    """Running server. `heads` holds the heads of all requests in order.

    Each connection gets one response, from `script`, and is then closed.
    """

    port: int
    script: Script
    heads: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await self.script(writer)
            writer.close()
            await writer.wait_closed()


def response(body: bytes = b"", *lines: str, status: str = "200 OK") -> bytes:
    """Return a response with the length of its body, unless a line states another framing."""
    framed = any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines)
    head = [f"HTTP/1.1 {status}", *lines, *([] if framed else [f"Content-Length: {len(body)}"])]
    return "\r\n".join([*head, "", ""]).encode() + body


def say(*pieces: bytes) -> Script:
    """Return a script that sends the bytes."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.writelines(pieces)
        await writer.drain()

    return script


def stall(*pieces: bytes) -> Script:
    """Return a script that sends the bytes, and then nothing until the client leaves."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.writelines(pieces)
        while not writer.is_closing():
            await asyncio.sleep(0.01)
            await writer.drain()

    return script


def drip(head: bytes, piece: bytes, pause: float) -> Script:
    """Return a script that sends `head`, and then `piece` again and again."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return script


@contextlib.asynccontextmanager
async def hostile(script: Script, host: str = "127.0.0.1") -> AsyncIterator[Hostile]:
    """Run a server on a loopback port."""
    running = Hostile(0, script)
    opened: list[tuple[asyncio.Task[None], asyncio.StreamWriter]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append((asyncio.create_task(running.serve(reader, writer)), writer))

    server = await asyncio.start_server(accept, host, limit=HEADS)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task, writer in opened:
            if task.cancel() or not writer.is_closing():
                writer.transport.abort()
        await asyncio.gather(*(task for task, _ in opened), return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in the next turn of the loop
