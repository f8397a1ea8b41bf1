"""`moorage usage`: bytes in use, and bytes that a deletion would free."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from registry.cli.commands.tag import split_tag
from registry.cli.kit import output, progress
from registry.cli.kit.local import run
from registry.cli.kit.parsing import Parser
from registry.errors import InputInvalidError
from registry.units import round_size

if TYPE_CHECKING:
    from registry.services.content.usage import Report, UsageShare

_MOST = 100_000
"""Maximum number of rows of a table."""


def declare(usage: Parser) -> None:
    """Declare the command."""
    usage.do(
        show,
        "moorage usage --top 5",
        "moorage usage --if-deleted team/app:v1 team/app:v2",
    )
    usage.add_json()
    usage.add_argument(
        "--top", metavar="N", default="20", help="maximum rows of each table (default 20)"
    )
    usage.add_argument(
        "--if-deleted",
        metavar="REPOSITORY:TAG",
        nargs="+",
        help="report instead what deleting these tags would free",
    )


def show(args: argparse.Namespace) -> int:
    if args.if_deleted:
        return _show_freed(args)
    if not args.top.isascii() or not args.top.isdigit() or not 0 < int(args.top) <= _MOST:
        raise InputInvalidError(f"--top must be a number from 1 to {_MOST}, not {args.top}")
    with progress.wait("adding up"):
        report = run(args, lambda registry: registry.usage.report(int(args.top)))
    if args.json:
        output.write_json(_to_json(report))
    else:
        _write(report)
    return 0


def _to_json(report: "Report") -> dict[str, object]:
    return {
        "stored": asdict(report.stored),
        "repositories": [_share(share) for share in report.repositories],
        "tags": [_share(share) for share in report.tags],
        "namespaces": [_share(share) for share in report.namespaces],
    }


def _share(share: "UsageShare") -> dict[str, object]:
    return {**asdict(share), "shared": share.bytes - share.exclusive}


def _write(report: "Report") -> None:
    stored = report.stored
    output.write(
        f"{stored.blobs} blobs with {round_size(stored.bytes)}, of which "
        f"{round_size(stored.unlinked_bytes)} are in no repository; {stored.manifests} manifests "
        f"with {round_size(stored.manifest_bytes)}."
    )
    for title, shares in (
        ("REPOSITORY", report.repositories),
        ("TAG", report.tags),
        ("NAMESPACE", report.namespaces),
    ):
        output.write("")
        output.write_table((title, "BYTES", "EXCLUSIVE", "SHARED"), _rows(shares))


def _rows(shares: "Sequence[UsageShare]") -> list[tuple[str, ...]]:
    return [
        (
            share.name or "(none)",
            round_size(share.bytes),
            round_size(share.exclusive),
            round_size(share.bytes - share.exclusive),
        )
        for share in shares
    ]


def _show_freed(args: argparse.Namespace) -> int:
    gone = [split_tag(text) for text in args.if_deleted]
    with progress.wait("adding up"):
        freed = run(args, lambda registry: registry.usage.measure_freed(gone))
    output.show(
        {"tags": args.if_deleted, **asdict(freed)},
        f"{freed.blobs} blobs with {round_size(freed.bytes)} and {freed.manifests} manifests with "
        f"{round_size(freed.manifest_bytes)} would be deleted.",
        as_json=args.json,
    )
    return 0
