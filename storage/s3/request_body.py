"""Body of a request that sends an object or a part."""

import os
import time

SEND_TIMEOUT_S = 600.0
"""Seconds that a request body may take while it makes progress: 16 MiB at 30 kB/s."""


class RequestBody:
    """A request body as a file object.

    A byte array would be sent with one call, and the whole call would have to end within the socket
    timeout. That is too short for a part on a slow line.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        self._view = memoryview(data)
        self._at = 0
        self._until = time.monotonic() + SEND_TIMEOUT_S

    def read(self, size: int = -1) -> bytes:
        if time.monotonic() > self._until:
            raise TimeoutError("sending the request body took too long")
        end = len(self._view) if size < 0 else self._at + size
        piece = bytes(self._view[self._at : end])
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._view)}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        """Release the view, because the owner of the bytes may want to resize them."""
        self._view.release()
