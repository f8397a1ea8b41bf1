"""`moorage usage`: bytes in use, and bytes that a deletion would free."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from registry.cli.commands.content.tag import split_tag
from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser
from registry.errors import InputInvalidError
from registry.units import round_size

if TYPE_CHECKING:
    from registry.operations.usage import UsageReport, UsageShare


def declare(usage: Parser) -> None:
    """Declare the command."""
    usage.do(
        show,
        "moorage usage --top 5",
        "moorage usage --if-deleted team/app:v1 team/app:v2",
    )
    usage.add_json()
    usage.add_remote()
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
    from registry.operations.usage import MOST_ENTRIES, get_usage

    if args.if_deleted:
        return _show_freed(args)
    most = MOST_ENTRIES
    if not args.top.isascii() or not args.top.isdigit() or not 0 < int(args.top) <= most:
        raise InputInvalidError(f"--top must be a number from 1 to {most}, not {args.top}")
    report = client.call(args, get_usage, n=int(args.top))
    if args.json:
        output.write_json(report)
    else:
        _write(report)
    return 0


def _write(report: UsageReport) -> None:
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
        output.write_table(
            (title, "BYTES", "EXCLUSIVE", "SHARED"), [_row(share) for share in shares]
        )


def _row(share: UsageShare) -> tuple[str, ...]:
    sizes = (share.bytes, share.exclusive, share.shared)
    return (share.name or "(none)", *map(round_size, sizes))


def _show_freed(args: argparse.Namespace) -> int:
    from registry.operations.usage import measure_freed

    gone = [split_tag(text) for text in args.if_deleted]
    freed = client.call(
        args,
        measure_freed,
        tags=[{"repository": str(name), "tag": str(tag)} for name, tag in gone],
    )
    output.show(
        {"tags": args.if_deleted, **output.to_json(freed)},
        f"{freed.blobs} blobs with {round_size(freed.bytes)} and {freed.manifests} manifests with "
        f"{round_size(freed.manifest_bytes)} would be deleted.",
        as_json=args.json,
    )
    return 0
