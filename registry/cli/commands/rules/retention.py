"""`moorage retention`: rules that drop tags and manifests."""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser
from registry.cli.kit.times import write_moment
from registry.services.retention.condition_fields import FIELDS, FieldKind, NewestBy
from registry.units import format_size

if TYPE_CHECKING:
    from registry.operations.retention import (
        PlannedManifest,
        PlannedTag,
        RetentionPlan,
        RetentionRules,
    )

_REPOSITORIES = 100
"""Number of plans in one request."""

_PATTERN = "repositories, such as 'team/**'"


def declare(retention: Parser) -> None:
    """Declare the commands."""
    _declare_set(
        retention.add_verb(
            "set",
            set_rules,
            "Set the rules of a pattern, replacing those it had",
            "moorage retention set 'team/**' --keep-tag 'v*' --drop-not-pulled 90d",
            "moorage retention set '**' --keep-newest 10 --drop-tag '*' --drop-untagged 7d",
            url=True,
        )
    )
    for verb, work, summary in (
        ("enable", enable, "Let the rules of a pattern drop tags and manifests"),
        ("disable", disable, "Stop the rules of a pattern from dropping anything"),
        ("remove", remove, "Remove the rules of a pattern"),
    ):
        command = retention.add_verb(
            verb, work, summary, f"moorage retention {verb} 'team/**'", url=True
        )
        command.add_argument("pattern", metavar="PATTERN", help=_PATTERN)
    retention.add_verb("list", list_all, "List all rules", "moorage retention list", url=True)
    for verb, work, summary in (
        ("plan", plan, "Show what the rules would drop, and why, and drop nothing"),
        ("run", run, "Apply the enabled rules now"),
    ):
        command = retention.add_verb(
            verb, work, summary, f"moorage retention {verb} 'team/**'", url=True
        )
        _add_repositories(command)
    command = retention.add_verb(
        "runs",
        list_runs,
        "List the runs that dropped something, or what one of them dropped",
        "moorage retention runs",
        "moorage retention runs 12",
        url=True,
    )
    command.add_argument("run", metavar="RUN", nargs="?", help="number of a run, as listed")
    command = retention.add_verb(
        "restore",
        restore,
        "Restore what a run dropped",
        "moorage retention restore 12 'team/**'",
        url=True,
    )
    command.add_argument("run", metavar="RUN", help="number of the run, as listed")
    _add_repositories(command)
    retention.add_verb(
        "status",
        status,
        "Show when the rules were applied, and when they will be",
        "moorage retention status",
        url=True,
    )


def _declare_set(command: Parser) -> None:
    command.explain(
        "New rules drop nothing until `moorage retention enable`, and changed rules wait for one "
        "retention.interval."
    )
    command.add_argument("pattern", metavar="PATTERN", help=_PATTERN)
    arguments: dict[FieldKind, dict[str, Any]] = {
        FieldKind.TAG_PATTERNS: {"metavar": "GLOB", "nargs": "+", "action": "extend"},
        FieldKind.COUNT: {"metavar": "N", "type": int},
        FieldKind.DURATION: {"metavar": "DURATION"},
        FieldKind.NEWEST_BY: {"choices": [each.value for each in NewestBy]},
    }
    for name, field in FIELDS.items():
        summary = field.description.rstrip(".")
        command.add_argument(
            field.option,
            dest=name,
            help=summary[0].lower() + summary[1:],
            **arguments[field.kind],
        )
    command.add_argument(
        "--now", action="store_true", help="let the rules drop at once, without a review"
    )


def _add_repositories(command: Parser) -> None:
    command.add_argument(
        "pattern",
        metavar="PATTERN",
        nargs="?",
        default="**",
        help="only in these repositories (default '**')",
    )


def set_rules(args: argparse.Namespace) -> int:
    from registry.operations.retention import set_retention_rules

    async def work(operations: client.OperationClient) -> None:
        rules = await operations.send(
            set_retention_rules,
            pattern=args.pattern,
            now=args.now,
            **{name: getattr(args, name) for name in FIELDS},
        )
        output.show(rules, f"{rules.pattern}: {rules.describe()}", as_json=args.json)
        if not rules.drops:
            output.write_note(
                "These rules only keep, and drop nothing. To drop something, set --drop-tag, "
                "--drop-not-pulled or --drop-untagged for this pattern or another one."
            )
        elif not args.json:
            total = {"tags": 0, "manifests": 0, "bytes": 0}
            await _write_tables(_iter_plans(operations, args.pattern), total, going_only=True)
            output.write_note(_explain_state(rules))

    client.run(args, work)
    return 0


def _explain_state(rules: RetentionRules) -> str:
    """Return a text that says when the rules take effect and how to change that."""
    pattern = rules.pattern
    if not rules.enabled:
        return (
            "Nothing is dropped yet. To let these rules drop what the plan shows: "
            f"moorage retention enable '{pattern}'"
        )
    if rules.waits_until is not None:
        return (
            f"The rules have changed, so nothing is dropped in {pattern} until "
            f"{write_moment(rules.waits_until)}. To stop them: moorage retention disable "
            f"'{pattern}'; to let them drop at once: moorage retention enable '{pattern}'"
        )
    return "These rules are enabled: the next run of the job drops what the plan shows."


def enable(args: argparse.Namespace) -> int:
    from registry.operations.retention import enable_retention_rules

    rules = client.call(args, enable_retention_rules, pattern=args.pattern)
    output.show(rules, f"{rules.pattern}: {rules.describe()}", as_json=args.json)
    if not args.json:
        output.write_note(_explain_state(rules))
    return 0


def disable(args: argparse.Namespace) -> int:
    from registry.operations.retention import disable_retention_rules

    rules = client.call(args, disable_retention_rules, pattern=args.pattern)
    said = f"The rules for {args.pattern} no longer drop anything; their keep rules still apply."
    output.show(rules, said, as_json=args.json)
    return 0


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.retention import list_retention_rules

    found = client.list_all(args, list_retention_rules)
    if args.json:
        output.write_json({"rules": found})
    else:
        rows = [(each.pattern, _write_state(each), each.describe()) for each in found]
        output.write_table(("PATTERN", "STATE", "RULES"), rows)
    return 0


def _write_state(rules: RetentionRules) -> str:
    if not rules.drops:
        return "keeps"
    if not rules.enabled:
        return "not enabled"
    waits = rules.waits_until
    return f"drops after {write_moment(waits)}" if waits else "enabled"


def remove(args: argparse.Namespace) -> int:
    from registry.operations.retention import delete_retention_rules

    client.call(args, delete_retention_rules, pattern=args.pattern)
    removed = f"Removed the retention rules for {args.pattern}."
    output.show({"removed": args.pattern}, removed, as_json=args.json)
    return 0


def plan(args: argparse.Namespace) -> int:
    """Print the plans page by page, because they may not fit in memory."""

    async def work(operations: client.OperationClient) -> None:
        total = {"tags": 0, "manifests": 0, "bytes": 0}
        pages = _iter_plans(operations, args.pattern)
        await (_write_json(pages, total) if args.json else _write_tables(pages, total))

    client.run(args, work)
    return 0


async def _iter_plans(
    operations: client.OperationClient, pattern: str
) -> AsyncIterator[list[RetentionPlan]]:
    from registry.operations.retention import plan_retention

    last: str | None = ""
    while last is not None:
        page = await operations.send(plan_retention, pattern=pattern, n=_REPOSITORIES, last=last)
        yield page.items
        last = page.next


def _count(plans: list[RetentionPlan], total: dict[str, int]) -> None:
    for each in plans:
        total["tags"] += sum(tag.action == "drop" for tag in each.tags)
        total["manifests"] += sum(manifest.action == "drop" for manifest in each.manifests)
        total["bytes"] += each.bytes


async def _write_json(pages: AsyncIterator[list[RetentionPlan]], total: dict[str, int]) -> None:
    comma = ""
    output.write('{"repositories": [')
    async for plans in pages:
        _count(plans, total)
        for each in plans:
            output.write(comma + json.dumps(each, default=output.to_json))
            comma = ","
    output.write("], " + json.dumps(total)[1:])


async def _write_tables(
    pages: AsyncIterator[list[RetentionPlan]], total: dict[str, int], *, going_only: bool = False
) -> None:
    paused_until = None
    not_enabled: set[str] = set()
    async for plans in pages:
        _count(plans, total)
        not_enabled.update(pattern for each in plans for pattern in each.not_enabled)
        paused_until = plans[-1].paused_until if plans else paused_until
        rows = [
            (
                f"{each.repository}{item}",
                found.action,
                format_size(found.bytes) if found.action == "drop" else "-",
                found.rule or "-",
                found.reason,
            )
            for each in plans
            for item, found in _list_items(each)
            if found.action == "drop" or not going_only
        ]
        if rows:
            output.write_table(("WHAT", "ACTION", "FREES", "PATTERN", "WHY"), rows)
    output.write(
        f"{total['tags']} tags and {total['manifests']} manifests would be dropped, which frees "
        f"{format_size(total['bytes'])}."
    )
    if going_only:
        return
    if paused_until is not None:
        output.write_note(
            f"Nothing is dropped until {write_moment(paused_until)}: rules have changed, or the "
            "database's clock has jumped."
        )
    for pattern in sorted(not_enabled):
        output.write_note(
            f"The rules for {pattern} are not enabled, so nothing is dropped by them: "
            f"moorage retention enable '{pattern}'"
        )


def _list_items(plan: RetentionPlan) -> list[tuple[str, PlannedTag | PlannedManifest]]:
    tags = [(f":{tag.tag}", tag) for tag in plan.tags]
    return [*tags, *((f"@{manifest.digest}", manifest) for manifest in plan.manifests)]


def run(args: argparse.Namespace) -> int:
    from registry.operations.retention import run_retention

    async def work(operations: client.OperationClient) -> dict[str, int]:
        dropped = {"tags": 0, "manifests": 0}
        last: str | None = ""
        while last is not None:
            piece = await operations.send(run_retention, pattern=args.pattern, last=last)
            dropped["tags"] += piece.tags
            dropped["manifests"] += piece.manifests
            last = piece.next
        return dropped

    dropped = client.run(args, work)
    said = f"Dropped {dropped['tags']} tags and {dropped['manifests']} manifests."
    output.show({"dropped": dropped}, said, as_json=args.json)
    return 0


def status(args: argparse.Namespace) -> int:
    from registry.operations.retention import get_retention_status

    found = client.call(args, get_retention_status)
    if args.json:
        output.write_json(found)
    else:
        rows = [
            (name, "-" if value is None else value) for name, value in output.to_json(found).items()
        ]
        output.write_table(("FIELD", "VALUE"), rows)
    return 0


def list_runs(args: argparse.Namespace) -> int:
    from registry.cli.commands.rules import retention_runs

    return retention_runs.list_runs(args)


def restore(args: argparse.Namespace) -> int:
    from registry.cli.commands.rules import retention_runs

    return retention_runs.restore(args)
