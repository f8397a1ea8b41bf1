"""`moorage fsck`: compare the rows of blobs with the stored objects, in both directions."""

import argparse
from typing import TYPE_CHECKING, Any

from registry.cli.kit import output, progress
from registry.cli.kit.local import run
from registry.cli.kit.parsing import Parser, read_option
from registry.units import parse_duration

if TYPE_CHECKING:
    from registry.services.maintenance.fsck import Report
    from registry.services.services import Services


def declare(fsck: Parser) -> None:
    """Declare the command."""
    fsck.do(check, "moorage fsck", "moorage fsck --repair --grace 1h")
    fsck.explain("The exit status is 1 while a problem is not repaired.")
    fsck.add_json()
    fsck.add_argument(
        "--repair",
        action="store_true",
        help="quarantine blobs without bytes; adopt or remove objects without a row",
    )
    fsck.add_argument(
        "--grace",
        metavar="DURATION",
        help="ignore younger objects that no row names (default storage.upload_expiry)",
    )


def check(args: argparse.Namespace) -> int:
    from registry.services.maintenance.fsck import Report

    grace = read_option(args.grace, "--grace", parse_duration) if args.grace else None
    report = Report()

    async def work(registry: "Services") -> None:
        rows = await registry.fsck.measure()

        def read_progress() -> progress.Progress:
            return progress.Progress(report.rows, rows, f"{report.rows} of {rows} blobs")

        with progress.show(read_progress):
            await registry.fsck.run(report, repair=args.repair, grace=grace)

    run(args, work)
    if args.json:
        output.write_json(_as_json(report))
    else:
        _tell(report)
    return 1 if report.open else 0


def _as_json(report: "Report") -> dict[str, Any]:
    return {
        "objects": report.objects,
        "rows": report.rows,
        "too_young": report.young,
        "counts": report.counts,
        "unrepaired": report.open,
        "findings": [
            {
                "kind": each.kind,
                "store": each.store,
                "key": each.key,
                "size": each.size,
                "digest": str(each.digest) if each.digest else None,
                "action": each.action.value,
            }
            for each in report.findings
        ],
    }


def _tell(report: "Report") -> None:
    count = sum(report.counts.values())
    output.write(f"Compared {report.rows} blobs with {report.objects} objects.")
    if report.findings:
        output.write_table(
            ("PROBLEM", "STORE", "KEY", "SIZE", "BLOB", "ACTION"),
            [
                (e.kind.value, e.store, e.key, e.size, e.digest or "-", e.action.value)
                for e in report.findings
            ],
        )
    if count > len(report.findings):
        output.write(f"and {count - len(report.findings)} more")
    output.write(f"{count} problems, {count - report.open} of them repaired.")
    if report.young:
        output.write_note(
            f"{report.young} objects that no row names are too young to be examined (see --grace)."
        )
