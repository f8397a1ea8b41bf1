"""`moorage audit`: the audit log."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from registry import clock
from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser, read_count
from registry.cli.kit.times import read_moment, write_moment
from registry.errors import InputInvalidError

if TYPE_CHECKING:
    from registry.operations.audit import AuditEvent

_PAGE = 1000
_EVERY = 1.0
"""Interval between two polls for new events, in seconds."""

_AGAIN = 200
"""Number of newest events that each poll reads again.

On PostgreSQL, an event with a lower number can be committed after one with a higher number.
"""

_LATE = 10_000_000
"""Microseconds by which an event may be committed late and still be followed."""

_FOLLOWED = 10
"""Number of existing events that `--follow` shows first."""

_SHA256, _DIGITS = 64, 12


def declare(audit: Parser) -> None:
    """Declare the commands."""
    command = audit.add_verb(
        "list",
        list_all,
        "List the newest events, oldest first",
        "moorage audit list --since 24h --event 'tag.delete,manifest.delete'",
        "moorage audit list --repository 'team/**' --actor alice",
        "moorage audit list --follow",
        url=True,
    )
    command.add_argument(
        "--since", metavar="WHEN", help="time such as 2026-11-23T19:12:00Z, or age such as 24h"
    )
    command.add_argument("--actor", metavar="NAME", help="only events caused by this account")
    command.add_argument(
        "--event", metavar="EVENTS", help="comma-separated kinds of events, such as 'tag.*'"
    )
    command.add_argument(
        "--repository", metavar="PATTERN", help="only events in these repositories"
    )
    command.add_argument(
        "--limit", metavar="N", help="at most the newest N (default 1000, with --follow 10)"
    )
    command.add_argument(
        "--follow", action="store_true", help="keep running and print events as they happen"
    )


def list_all(args: argparse.Namespace) -> int:
    limit = _find_limit(args)
    since = None if args.since is None else clock.rfc3339(_read_since(args.since))
    asked = {"actor": args.actor, "event": args.event, "repository": args.repository}

    async def work(operations: client.OperationClient) -> None:
        newest, more = await _list_newest(operations, limit, {**asked, "since": since})
        if args.follow:
            _write_lines(newest, as_json=args.json)
            async for events in _follow(operations, newest, asked):
                _write_lines(events, as_json=args.json)
        else:
            _write(newest, as_json=args.json)
            if more:
                output.write_note(
                    f"Only the newest {limit} events are shown; for more, use --limit N."
                )

    client.run(args, work)
    return 0


def _read_since(text: str) -> int:
    """Return microseconds since the epoch. Raises InputInvalidError that names the option."""
    try:
        return read_moment(text)
    except InputInvalidError as error:
        raise InputInvalidError(f"--since: {error}") from error


def _find_limit(args: argparse.Namespace) -> int:
    if args.limit is not None:
        return read_count(args.limit, "--limit")
    return _FOLLOWED if args.follow else _PAGE


async def _list_newest(
    operations: client.OperationClient, limit: int, asked: dict[str, Any]
) -> tuple[list[AuditEvent], bool]:
    """Return the newest `limit` events in ascending order, and whether there are more."""
    from registry.operations.audit import list_events

    found: list[AuditEvent] = []
    last: str | None = ""
    while last is not None and len(found) < limit:
        n = min(_PAGE, limit - len(found))
        page = await operations.send(list_events, **asked, n=n, last=last, newest_first=True)
        found += page.items
        last = page.next
    return found[::-1], last is not None


async def _follow(
    operations: client.OperationClient, newest: list[AuditEvent], asked: dict[str, Any]
) -> AsyncIterator[list[AuditEvent]]:
    """Yield new events that match the filter `asked`, after the `newest` that were listed."""
    from registry.operations.audit import list_events

    latest = (await operations.send(list_events, n=1, newest_first=True)).items
    since = clock.rfc3339(clock.read_rfc3339(latest[0].at) - _LATE) if latest else None
    begin = newest[0].at if newest else ""
    shown = {_key(event) for event in newest}
    numbers = {"audit": 0, "feed": 0}
    while True:
        await asyncio.sleep(_EVERY)
        last: str | None = f"{max(0, numbers['audit'] - _AGAIN)}-{numbers['feed']}"
        while last is not None:
            page = await operations.send(list_events, **asked, since=since, n=_PAGE, last=last)
            last = page.next
            # Timestamps in responses have a fixed width, so they compare correctly as text.
            new = [e for e in page.items if _key(e) not in shown and e.at >= begin]
            shown |= {_key(event) for event in page.items}
            if new:
                yield new
        for source, number in shown:
            numbers[source] = max(numbers[source], number)
        shown = {key for key in shown if key[1] > numbers[key[0]] - _AGAIN}


def _key(event: AuditEvent) -> tuple[str, int]:
    return event.source, event.number


def _write(events: list[AuditEvent], *, as_json: bool) -> None:
    if as_json:
        output.write_json({"events": events})
    else:
        header = ("AT", "BY", "FROM", "EVENT", "TARGET", "DETAIL")
        output.write_table(header, [_list_cells(event) for event in events])


def _write_lines(events: list[AuditEvent], *, as_json: bool) -> None:
    for event in events:
        if as_json:
            output.write(json.dumps(event, default=output.to_json))
        else:
            output.write_row(_list_cells(event))
    output.flush()


def _list_cells(event: AuditEvent) -> tuple[str, ...]:
    return (
        write_moment(event.at),
        event.actor,
        event.address or "-",
        event.event,
        _shorten(event.target),
        " ".join(f"{name}={_write_value(value)}" for name, value in event.detail.items()),
    )


def _write_value(value: Any) -> str:
    return _shorten(value) if isinstance(value, str) else json.dumps(value)


def _shorten(text: str) -> str:
    """Shorten a digest at the end of the text. JSON output has the whole digest."""
    before, algorithm, digest = text.rpartition("sha256:")
    return f"{before}{algorithm}{digest[:_DIGITS]}" if len(digest) == _SHA256 else text
