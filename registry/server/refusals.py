"""Refusals of requests: their messages, access log lines and metrics."""

import logging

from registry import metrics
from registry.server.framing_error import FramingError
from registry.server.places import Refusal

access = logging.getLogger("moorage.access")

REFUSALS = {
    Refusal.SERVER: FramingError(
        "the server has reached its limit of connections; try again later", 503, "UNAVAILABLE"
    ),
    Refusal.ADDRESS: FramingError(
        "your address has reached its limit of connections; close or reuse some",
        429,
        "TOOMANYREQUESTS",
    ),
}


def note_refusal(error: FramingError, client: tuple[str, int | None] | None) -> None:
    """Count and log a request that is refused before the application sees it."""
    metrics.REQUESTS.labels("other", "refused", str(error.status)).inc()
    access.info(
        "request refused: %s",
        error.message,
        extra={"status": error.status, "client": client[0] if client else "-"},
    )
