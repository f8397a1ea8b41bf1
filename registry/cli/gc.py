"""`moorage gc`: garbage collection."""

import argparse
from dataclasses import asdict
from typing import Any

from registry import clock
from registry.cli import output
from registry.cli.opened import run as run_on
from registry.services.collector import Status, Tally
from registry.services.registry import Registry
from registry.units import format_size


def run(args: argparse.Namespace) -> int:
    tally = run_on(args, _collect)
    if args.json:
        output.write_json(asdict(tally))
        return 0
    rows = [
        (name, freed.manifests, freed.blobs, format_size(freed.bytes))
        for name, freed in sorted(tally.repositories.items())
    ]
    if rows:
        output.write_table(("REPOSITORY", "MANIFESTS", "BLOBS", "SIZE"), rows)
    output.write(
        f"Collected {tally.manifests} manifests and {tally.blobs} blobs of "
        f"{format_size(tally.bytes)}."
    )
    return 0


async def _collect(registry: Registry) -> Tally:
    tally = Tally()
    while await registry.collector.collect(tally):
        output.show_progress(0, 1, f"{tally.seen} looked at, {format_size(tally.bytes)} freed")
    while await registry.doomed.sweep():
        pass
    output.end_progress()
    return tally


def status(args: argparse.Namespace) -> int:
    found = run_on(args, lambda registry: registry.collector.get_status())
    shown = _show(found)
    if args.json:
        output.write_json(shown)
    else:
        output.write_table(("FIELD", "VALUE"), list(shown.items()))
    return 0


def _show(status: Status) -> dict[str, Any]:
    paused = status.paused_until
    return {
        **asdict(status),
        "looked_at": clock.rfc3339(status.looked_at),
        "paused_until": None if paused is None else clock.rfc3339(paused),
    }
