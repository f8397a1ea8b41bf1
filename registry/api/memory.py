"""A bound on the memory that large bodies and answers of all clients take at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Protocol, Self, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registry.errors import BusyError, ClientGoneError

SMALL = 16 << 10
"""Bytes of a body or an answer that need no reservation."""

WAIT = 30.0
"""Seconds that a request waits for memory."""

GRACE = 5.0
SLOWEST = 64 << 10
"""Bytes a second that a client with a reservation must send or read after `GRACE` seconds: slow
clients must not keep others out.
"""

PIECE = 64 << 10
"""Bytes that are sent at once: what a client does not read is kept a second time."""


def find_patience(size: int) -> float:
    """Return the seconds in which a client must send or read `size` bytes."""
    return GRACE + size / SLOWEST


class MemoryBudget:
    """Bytes that requests reserve before they fill them. Who waits is served in order."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._shared: dict[int, tuple[bytes, int]] = {}

    @property
    def free(self) -> int:
        """Bytes that nobody has reserved."""
        return self._free

    async def take(self, size: int) -> int:
        """Reserve `size` bytes, or all there are if that is less; how many. BusyError."""
        wanted = min(size, self._size)
        if wanted <= self._free and not self._waiting:
            self._free -= wanted
            return wanted
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (wanted, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(WAIT):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give(wanted)  # granted at the very moment
            else:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                self._serve()
            if isinstance(error, TimeoutError):
                raise BusyError(
                    "the server handles as many large manifests as it has memory for; try again"
                ) from None
            raise
        return wanted

    def give(self, size: int) -> None:
        """Return reserved bytes."""
        self._free += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            wanted, turn = self._waiting.popleft()
            # Given up in this turn of the loop: its task has not run since.
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes. BusyError."""
        taken = await self.take(size)
        try:
            yield
        finally:
            self.give(taken)

    def try_share(self, raw: bytes, taken: int) -> bool:
        """Hold bytes that other requests may hold as well: together they count once.

        `taken` bytes are reserved already, and become part of it. False: there is no room for more.
        """
        _, count = self._shared.get(id(raw), (raw, 0))
        if not count:
            more = min(len(raw), self._size) - taken
            if more > self._free or (more > 0 and self._waiting):
                return False
            self.give(-more)
        else:
            self.give(taken)
        self._shared[id(raw)] = (raw, count + 1)
        return True

    def unshare(self, raw: bytes) -> None:
        """Hold the bytes no longer."""
        _, count = self._shared.pop(id(raw))
        if count > 1:
            self._shared[id(raw)] = (raw, count - 1)
        else:
            self.give(min(len(raw), self._size))


class Loaded(Protocol):
    """What has the bytes of an answer."""

    @property
    def raw(self) -> bytes: ...


T = TypeVar("T", bound=Loaded)


class AnswerMemory:
    """What the answer to one request holds, until it is sent or the request fails."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._raw: bytes | None = None
        self._handed_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del error, traceback
        if kind is not None or not self._handed_over:
            self.release()

    async def load(self, load: Callable[[], Awaitable[T]]) -> T:
        """Return what `load` gives, whose bytes are held from then on. BusyError.

        Where there is no room, what was loaded is dropped, and loaded again when there is.
        """
        loaded = await load()
        taken = 0
        while len(loaded.raw) > SMALL and not self._budget.try_share(loaded.raw, taken):
            self._budget.give(taken)
            size = len(loaded.raw)
            del loaded
            taken = await self._budget.take(size)
            try:
                loaded = await load()
            except BaseException:
                self._budget.give(taken)
                raise
        if len(loaded.raw) > SMALL:
            self._raw = loaded.raw
        else:
            self._budget.give(taken)
        return loaded

    def answer(self, raw: bytes, headers: dict[str, str]) -> Response:
        """Return the answer with the bytes of what was loaded."""
        if self._raw is None:
            return Response(raw, 200, headers)
        self._handed_over = True
        return _LargeAnswer(self._raw, headers, self)

    def release(self) -> None:
        """Hold nothing any longer."""
        if self._raw is not None:
            self._budget.unshare(self._raw)
            self._raw = None


class _LargeAnswer(Response):
    """Sends its body in pieces, and cuts the connection of a client that reads too slowly."""

    def __init__(self, raw: bytes, headers: dict[str, str], memory: AnswerMemory) -> None:
        super().__init__(None, 200, {**headers, "Content-Length": str(len(raw))})
        self._bytes = raw
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        try:
            async with asyncio.timeout(find_patience(len(self._bytes))):
                await self._send(send)
        except TimeoutError as error:
            raise ClientGoneError("the client reads a large answer too slowly") from error
        finally:
            self._memory.release()

    async def _send(self, send: Send) -> None:
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        size = len(self._bytes)
        for start in range(0, size, PIECE):
            end = start + PIECE
            piece = self._bytes[start:end]
            await send({"type": "http.response.body", "body": piece, "more_body": end < size})
