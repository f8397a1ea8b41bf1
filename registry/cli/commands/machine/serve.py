"""`moorage serve`: run the registry."""

import argparse
import gc

from registry.cli.kit.parsing import Parser


def declare(serve: Parser) -> None:
    """Declare the command."""
    serve.do(
        work,
        "moorage serve",
        "moorage serve --listen :5000 --data /var/lib/moorage",
        "moorage serve --listen unix:/run/moorage/http.sock --workers 4",
    )
    serve.add_argument(
        "--listen",
        metavar="HOST:PORT|unix:PATH",
        help="address to listen on (default 127.0.0.1:5000)",
    )
    serve.add_argument("--workers", metavar="N", help="number of worker processes (default 1)")


def work(args: argparse.Namespace) -> int:
    # Collections during the imports would visit all that is loaded, and would free nothing.
    gc.disable()
    from registry.cli.server import serve

    return serve.serve(args)
