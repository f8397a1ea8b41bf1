"""Advice in answers, for people: `Warning: 299 - "…"`.

Source: OCI distribution-spec, Warnings; RFC 7234 section 5.5 for the form.
"""

import contextlib
from collections.abc import Iterable

from starlette.responses import Response

from registry.api.call import Call
from registry.errors import DatabaseUnavailableError
from registry.services.quotas import Standing
from registry.units import round_size

MAX_BYTES = 4096
"""Of all warnings of an answer together, as the specification has it."""

NEARLY_FULL = 90
"""Percent of a quota from which a push is told."""


def add_warnings(response: Response, texts: Iterable[str]) -> None:
    """Add a warning for each text, as far as there is room for them."""
    left = MAX_BYTES
    for text in texts:
        printable = "".join(c if " " <= c <= "~" else "?" for c in text)
        escaped = printable.replace("\\", "\\\\").replace('"', '\\"')
        value = f'299 - "{escaped}"'
        left -= len(value)
        if left <= 0:
            return
        response.headers.append("Warning", value)


async def advise(call: Call, response: Response) -> Response:
    """The answer to a push, with what whoever pushed should know."""
    # What was pushed is stored: the answer must say so, also where this cannot be told.
    with contextlib.suppress(DatabaseUnavailableError):
        quotas = call.registry.quotas
        if await quotas.hold_for(call.name, call.began):
            standings = await quotas.list_standings(call.name)
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
