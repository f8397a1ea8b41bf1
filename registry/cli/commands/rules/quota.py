"""`moorage quota`: limits on the bytes in the repositories of a pattern."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser
from registry.errors import InputInvalidError
from registry.units import format_size, parse_size, round_size

if TYPE_CHECKING:
    from registry.operations.quotas import Quota

_PATTERN = "repositories: team/app, 'team/**' or '**'; '*/**' for every namespace"


def declare(quotas: Parser) -> None:
    """Declare the commands."""
    command = quotas.add_verb(
        "set",
        set_one,
        "Limit the bytes in the repositories of a pattern",
        "moorage quota set 'team/**' 50GiB",
        "moorage quota set '*/**' 10GiB",
        url=True,
    )
    command.add_argument("pattern", metavar="PATTERN", help=_PATTERN)
    command.add_argument("size", metavar="SIZE", help="maximum size, such as 10GiB")
    quotas.add_verb(
        "list", list_all, "List quotas and how much of each is used", "moorage quota list", url=True
    )
    command = quotas.add_verb(
        "remove", remove, "Remove a quota", "moorage quota remove 'team/**'", url=True
    )
    command.add_argument("pattern", metavar="PATTERN", help=_PATTERN)


def set_one(args: argparse.Namespace) -> int:
    from registry.operations.quotas import set_quota

    try:
        limit = parse_size(args.size)
    except ValueError as error:
        raise InputInvalidError(
            f"invalid size {args.size!r:.80}: write a number with a unit, such as 512MiB or 10GiB"
        ) from error
    quota = client.call(args, set_quota, pattern=args.pattern, limit=limit)
    output.show(quota, f"{args.pattern} may use {format_size(limit)}.", as_json=args.json)
    if not quota.usage_complete:
        output.write_note(
            "Existing content is not counted yet; a job of the registry counts it now."
        )
    return 0


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.quotas import list_quotas

    quotas = client.list_all(args, list_quotas)
    if args.json:
        output.write_json({"quotas": quotas})
    else:
        header = ("PATTERN", "LIMIT", "USED", "RESERVED", "MOST USED")
        output.write_table(header, [_row(quota) for quota in quotas])
    return 0


def _row(quota: Quota) -> tuple[str, ...]:
    used = round_size(quota.used)
    if not quota.usage_complete:
        used += " (counting)"
    elif quota.limit:
        used += f" ({quota.used * 100 // quota.limit}%)"
    most_used = quota.most_used_namespace
    fullest = "" if most_used == quota.pattern else most_used
    limit, coming = round_size(quota.limit), round_size(quota.reserved)
    return quota.pattern, limit, used, coming, fullest


def remove(args: argparse.Namespace) -> int:
    from registry.operations.quotas import delete_quota

    client.call(args, delete_quota, pattern=args.pattern)
    said = f"Removed the quota of {args.pattern}."
    output.show({"removed": args.pattern}, said, as_json=args.json)
    return 0
