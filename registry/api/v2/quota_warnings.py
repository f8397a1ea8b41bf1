"""Warnings for people in responses: `Warning: 299 - "…"`.

Source: OCI distribution-spec, Warnings; RFC 7234 section 5.5 for the form.
"""

import contextlib
from collections.abc import Iterable

from starlette.responses import Response

from registry.errors import DatabaseUnavailableError
from registry.http.request_context import RequestContext
from registry.services.quotas.quotas import Standing
from registry.units import round_size

MAX_BYTES = 4096
"""The maximum size of all warnings of a response, as the specification requires."""

NEARLY_FULL = 90
"""The usage of a quota, in percent, from which a push gets a warning."""


def add_warnings(response: Response, texts: Iterable[str]) -> None:
    """Add a warning for each text, up to the maximum size."""
    left = MAX_BYTES
    for text in texts:
        printable = "".join(c if " " <= c <= "~" else "?" for c in text)
        escaped = printable.replace("\\", "\\\\").replace('"', '\\"')
        value = f'299 - "{escaped}"'
        left -= len(value)
        if left <= 0:
            return
        response.headers.append("Warning", value)


async def advise(context: RequestContext, response: Response) -> Response:
    """Return the response to a push, with warnings about quotas."""
    # The push has succeeded, so the response must say so even if the quotas cannot be read.
    with contextlib.suppress(DatabaseUnavailableError):
        quotas = context.registry.quotas
        if await quotas.hold_for(context.name, context.received_at):
            standings = await quotas.list_standings(context.name)
            add_warnings(response, [_write(s) for s in standings if _percent(s) >= NEARLY_FULL])
    return response


def _percent(standing: Standing) -> int:
    limit = standing.quota.bytes
    return standing.used * 100 // limit if limit else 100


def _write(standing: Standing) -> str:
    return (
        f"the quota of {standing.pattern} is {_percent(standing)}% full: "
        f"{round_size(standing.used)} of {round_size(standing.quota.bytes)} are used"
    )
