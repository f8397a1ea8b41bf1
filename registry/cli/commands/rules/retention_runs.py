"""`moorage retention runs` and `restore`: what retention dropped."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from registry.cli.kit import client, output
from registry.cli.kit.parsing import read_count
from registry.cli.kit.times import write_moment

if TYPE_CHECKING:
    from registry.operations.retention_runs import RetentionDrop, RetentionRun, SkippedDrop


def list_runs(args: argparse.Namespace) -> int:
    from registry.operations.retention_runs import list_retention_drops, list_retention_runs

    if args.run is None:
        runs = client.list_all(args, list_retention_runs)
        if args.json:
            output.write_json({"runs": runs})
        else:
            header = ("RUN", "BEGAN", "ENDED", "TAGS", "MANIFESTS")
            output.write_table(header, [_list_run(each) for each in runs])
        return 0
    drops = client.list_all(args, list_retention_drops, run=read_count(args.run, "RUN"))
    if args.json:
        output.write_json({"drops": drops})
    else:
        rows = [(_name(e), e.digest, write_moment(e.at), e.state) for e in drops]
        output.write_table(("DROPPED", "DIGEST", "AT", "MANIFEST"), rows)
        output.write_note(f"To put all of it back: moorage retention restore {args.run}")
    return 0


def _list_run(run: RetentionRun) -> tuple[object, ...]:
    began, ended = write_moment(run.started_at), write_moment(run.ended_at)
    return (run.id, began, ended, run.tags, run.manifests)


def _name(drop: RetentionDrop | SkippedDrop) -> str:
    return f"{drop.repository}:{drop.tag}" if drop.tag else f"{drop.repository}@"


def restore(args: argparse.Namespace) -> int:
    from registry.operations.retention_runs import restore_retention_run

    number = read_count(args.run, "RUN")

    async def work(operations: client.OperationClient) -> tuple[int, int, list[SkippedDrop]]:
        tags = manifests = 0
        skipped: list[SkippedDrop] = []
        first: int | None = 0
        while first is not None:
            piece = await operations.send(
                restore_retention_run, run=number, pattern=args.pattern, first=first
            )
            tags += piece.tags
            manifests += piece.manifests
            skipped += piece.skipped
            first = piece.next
        return tags, manifests, skipped

    tags, manifests, skipped = client.run(args, work)
    said = f"Restored {tags} tags and {manifests} manifests."
    done = {"tags": tags, "manifests": manifests, "skipped": skipped}
    output.show({"restored": done}, said, as_json=args.json)
    for each in skipped:
        output.write_error(f"not restored: {_name(each)} {each.digest}: {each.reason}")
    return 1 if skipped else 0
