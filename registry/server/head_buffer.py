"""The bytes of a request head until it is complete."""

from registry.server.framing_error import FramingError
from registry.server.head import TLS_HANDSHAKE, check_partial_head


class HeadBuffer(bytearray):
    """The bytes that arrived before a request is parsed, and those of later requests."""

    __slots__ = ("_scanned", "asks_head")

    def __init__(self) -> None:
        super().__init__()
        self._scanned = 0
        self.asks_head = False
        """Whether the latest request is a HEAD request."""

    def clear(self) -> None:
        super().clear()
        self._scanned = 0

    def take_head(self, long_query_paths: tuple[bytes, ...]) -> tuple[bytes, bytes] | None:
        """Remove everything, and return the head and the bytes after it; None if it is incomplete.

        Raises FramingError if the head cannot become valid. `long_query_paths` is as in
        `check_partial_head`.
        """
        if self.startswith(b"\r\n"):
            self._scanned = max(0, self._scanned - 2)
            del self[:2]  # RFC 9112 section 2.2: ignore an empty line before a request
        self.asks_head = self.startswith(b"HEAD ")
        if self and self[0] == TLS_HANDSHAKE:
            raise FramingError("this port uses HTTP without TLS; use http:// to reach it")
        end = self.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0:
            check_partial_head(self, self._scanned, long_query_paths)
            self._scanned = len(self)
            return None
        head, rest = bytes(self[:end]), bytes(self[end + 4 :])
        self.clear()
        return head, rest
