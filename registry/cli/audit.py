"""`moorage audit`: what happened."""

import argparse
import json

from registry import clock
from registry.cli import admin, output
from registry.units import parse_duration

_SECOND = 1_000_000


def list_all(args: argparse.Namespace) -> int:
    since = None if args.since is None else _read_since(args.since)
    events = admin.list_all(args, "list_events", since=since, actor=args.actor)
    if args.json:
        output.write_json({"events": events})
    else:
        rows = [
            (
                event["at"],
                event["actor"],
                event["address"] or "-",
                event["event"],
                event["target"],
                json.dumps(event["detail"]),
            )
            for event in events
        ]
        output.write_table(("AT", "BY", "FROM", "EVENT", "TARGET", "DETAIL"), rows)
    return 0


def _read_since(text: str) -> str:
    """A moment as it is, and a duration as the moment that long ago."""
    try:
        ago = parse_duration(text)
    except ValueError:
        return text
    return clock.rfc3339(clock.now() - int(ago * _SECOND))
