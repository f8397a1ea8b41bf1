"""Reader of an object on the local disk."""

from collections.abc import AsyncIterator

from aiofiles.threadpool.binary import AsyncFileIO

from storage.errors import ObjectCorruptError
from storage.local.os_errors import translate_os_errors
from storage.piece_budget import PieceBudget
from storage.shield import run_to_completion


class LocalReader:
    """An open object, read through aiofiles."""

    def __init__(self, file: AsyncFileIO, size: int, budget: PieceBudget) -> None:
        self.size = size
        self._file = file
        self._budget = budget

    async def read(self, start: int, length: int) -> AsyncIterator[bytes]:
        with translate_os_errors("seeking"):
            await run_to_completion(self._file.seek(start))
        while length:
            with self._budget.take() as size:
                try:
                    piece = await run_to_completion(self._file.read(min(size, length)))
                except OSError as error:
                    raise ObjectCorruptError("the object cannot be read") from error
                if not piece:
                    raise ObjectCorruptError("the object is shorter than expected")
                length -= len(piece)
                yield piece

    async def close(self) -> None:
        await run_to_completion(self._file.close())
