"""A violation of HTTP framing or of the server's limits."""


class FramingError(Exception):
    """A request that is refused before the application sees it. Its connection is closed.

    `status` is the HTTP status, `code` a code of the OCI distribution specification.
    """

    def __init__(self, message: str, status: int = 400, code: str = "UNSUPPORTED") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
