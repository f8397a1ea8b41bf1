"""A limit on the memory that large request and response bodies of all clients use together."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Protocol, Self, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registry.errors import BusyError, ClientDisconnectedError

SMALL_BODY = 16 << 10
"""The size of a body up to which it needs no reservation, in bytes."""

MEMORY_TIMEOUT_S = 30.0
"""The time that a request waits for memory, in seconds."""

GRACE_S = 5.0
MIN_RATE = 64 << 10
"""The minimum rate of a client with a reservation, in bytes per second, after `GRACE_S` seconds.

Slow clients must not block others.
"""

CHUNK_SIZE = 64 << 10
"""The number of bytes to send at once. Bytes that the client has not read yet are held twice."""


def transfer_timeout(size: int) -> float:
    """Return the time in which a client must send or read `size` bytes, in seconds."""
    return GRACE_S + size / MIN_RATE


class MemoryBudget:
    """Bytes that requests reserve before they use them. Reservations are granted in order."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._shared: dict[int, tuple[bytes, int]] = {}

    @property
    def free(self) -> int:
        """The number of bytes that are not reserved."""
        return self._free

    async def acquire(self, size: int) -> int:
        """Reserve `size` bytes, or all there are if that is less, and return their number.

        Raises BusyError.
        """
        wanted = min(size, self._size)
        if wanted <= self._free and not self._waiting:
            self._free -= wanted
            return wanted
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (wanted, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(MEMORY_TIMEOUT_S):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release(wanted)  # granted just before the wait ended
            else:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                self._serve()
            if isinstance(error, TimeoutError):
                raise BusyError(
                    "the memory for large manifests is in use; try again later"
                ) from None
            raise
        return wanted

    def release(self, size: int) -> None:
        """Release reserved bytes."""
        self._free += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            wanted, turn = self._waiting.popleft()
            # It may be cancelled already, while its task has not run since.
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Reserve `size` bytes; raise BusyError."""
        taken = await self.acquire(size)
        try:
            yield
        finally:
            self.release(taken)

    def try_share(self, raw: bytes, taken: int) -> bool:
        """Reserve bytes that other requests may share: together they count once.

        `taken` bytes are already reserved and become part of the reservation. Returns False if
        there is not enough memory.
        """
        _, count = self._shared.get(id(raw), (raw, 0))
        if not count:
            more = min(len(raw), self._size) - taken
            if more > self._free or (more > 0 and self._waiting):
                return False
            self.release(-more)
        else:
            self.release(taken)
        self._shared[id(raw)] = (raw, count + 1)
        return True

    def unshare(self, raw: bytes) -> None:
        """Release shared bytes."""
        _, count = self._shared.pop(id(raw))
        if count > 1:
            self._shared[id(raw)] = (raw, count - 1)
        else:
            self.release(min(len(raw), self._size))


class Loaded(Protocol):
    """An object with the bytes of a response."""

    @property
    def raw(self) -> bytes: ...


T = TypeVar("T", bound=Loaded)


class AnswerMemory:
    """The memory of one response, reserved until the response is sent or the request fails."""

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
        """Return the result of `load`, with a reservation for its bytes. Raises BusyError.

        If there is not enough memory, the result is dropped, and loaded again once there is.
        """
        loaded = await load()
        taken = 0
        while len(loaded.raw) > SMALL_BODY and not self._budget.try_share(loaded.raw, taken):
            self._budget.release(taken)
            size = len(loaded.raw)
            del loaded
            taken = await self._budget.acquire(size)
            try:
                loaded = await load()
            except BaseException:
                self._budget.release(taken)
                raise
        if len(loaded.raw) > SMALL_BODY:
            self._raw = loaded.raw
        else:
            self._budget.release(taken)
        return loaded

    def answer(self, raw: bytes, headers: dict[str, str]) -> Response:
        """Return the response with the loaded bytes."""
        if self._raw is None:
            return Response(raw, 200, headers)
        self._handed_over = True
        return _LargeAnswer(self._raw, headers, self)

    def release(self) -> None:
        """Release the reservation."""
        if self._raw is not None:
            self._budget.unshare(self._raw)
            self._raw = None


class _LargeAnswer(Response):
    """Sends its body in pieces, and aborts the connection of a client that reads too slowly."""

    def __init__(self, raw: bytes, headers: dict[str, str], memory: AnswerMemory) -> None:
        super().__init__(None, 200, {**headers, "Content-Length": str(len(raw))})
        self._bytes = raw
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        try:
            async with asyncio.timeout(transfer_timeout(len(self._bytes))):
                await self._send(send)
        except TimeoutError as error:
            raise ClientDisconnectedError("the client reads a large response too slowly") from error
        finally:
            self._memory.release()

    async def _send(self, send: Send) -> None:
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        size = len(self._bytes)
        for start in range(0, size, CHUNK_SIZE):
            end = start + CHUNK_SIZE
            piece = self._bytes[start:end]
            await send({"type": "http.response.body", "body": piece, "more_body": end < size})
