"""`moorage worker`: run the background jobs in a process of their own."""

import argparse

from registry.cli.kit.parsing import Parser


def declare(worker: Parser) -> None:
    """Declare the command."""
    worker.do(work, "moorage worker", "moorage worker --check")
    worker.add_argument(
        "--check",
        action="store_true",
        help="report whether the worker of the data directory is healthy; exit with 0 or 1",
    )


def work(args: argparse.Namespace) -> int:
    from registry.cli.server import worker

    return worker.work(args)
