"""An application and revisions for the tests of answers from memory, and their client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.types import Message, Receive, Scope, Send

from registry.access_log import LoggedCaller, LoggedRequest
from registry.auth.caller import ALWAYS, Validity
from registry.http.handled import Handled
from registry.http.reuse import SCOPE, Terms
from registry.oci.names import RepositoryName
from tests.support.servers.http_server import Served, answer_lifespan

NAME = RepositoryName("team/app")


@dataclass
class Revisions:
    """Revisions that the test changes."""

    policy: int = 1
    mark: bytes = b"1"
    seen: bytes | None = b"1"
    needs_query: bool = False
    reads: list[asyncio.Future[None]] = field(default_factory=list)
    """The reads that were started, each of which begins when the test completes it."""
    forget: list[Callable[[frozenset[RepositoryName] | None], None]] = field(default_factory=list)

    def is_current(self) -> bool:
        return self.seen == self.mark

    def read_mark(self) -> bytes | None:
        return self.mark

    def find_mark(self) -> bytes | None:
        return self.seen if self.is_current() else None

    async def read(self) -> None:
        self.seen = self.mark

    def start_read(self) -> asyncio.Future[None]:
        if not self.reads or self.reads[-1].done():
            self.reads.append(asyncio.get_running_loop().create_future())
        return self.reads[-1]

    def subscribe(self, forget: Callable[[frozenset[RepositoryName] | None], None]) -> None:
        self.forget.append(forget)

    def commit(self) -> None:
        self.mark += b"1"


@dataclass
class App:
    """An application that allows all of its responses to be repeated."""

    calls: int = 0
    status: int = 200
    body: bytes = b"{}"
    more: list[tuple[bytes, bytes]] = field(default_factory=list)
    validity: Validity = ALWAYS
    admit: Callable[[str | None], bool] | None = None
    notes: int = 0
    during: Callable[[], None] = lambda: None
    allows: bool = True

    def note(self) -> None:
        self.notes += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        self.calls += 1
        self.during()
        if self.allows and SCOPE in scope:
            scope[SCOPE].terms = Terms(NAME, self.validity, None, self.admit, self.note)
        head: Message = {
            "type": "http.response.start",
            "status": self.status,
            "headers": [
                (b"content-length", str(len(self.body)).encode()),
                *self.more,
                (b"x-request-id", b"%d" % self.calls),
                (b"etag", b"after"),
            ],
        }
        await send(head)
        await send({"type": "http.response.body", "body": self.body})
        if SCOPE in scope:
            caller = LoggedCaller(scope["client"][0], "agent", "-")
            scope[SCOPE].handled = Handled("/v2/", LoggedRequest("GET", "/v2/"), caller, 200, 0, 2)


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> tuple[bytes, bytes]:
        """Send a request and return the head and the body of the response."""
        self.writer.write(data)
        return await self.read(has_body=not data.startswith(b"HEAD"))

    async def read(self, *, has_body: bool = True) -> tuple[bytes, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        return head, await self.reader.readexactly(length if has_body else 0)


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    yield Client(reader, writer)
    writer.close()
    await writer.wait_closed()
