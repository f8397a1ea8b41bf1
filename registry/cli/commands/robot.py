"""`moorage robot`: robot accounts."""

import argparse
from typing import Any

from registry.cli.kit import client, output


def add(args: argparse.Namespace) -> int:
    made = client.call(args, "add_robot", name=args.name, expires=args.expires)
    return _reveal(args, made)


def rotate(args: argparse.Namespace) -> int:
    made = client.call(
        args, "rotate_robot", name=args.name, overlap=args.overlap, expires=args.expires
    )
    return _reveal(args, made)


def _reveal(args: argparse.Namespace, made: Any) -> int:
    """Print the secret alone, so that it can be piped."""
    output.show(made, made["secret"], as_json=args.json)
    login = client.write_login(args, made["username"])
    output.write_note(f"The secret is not shown again. To sign in: {login}")
    return 0


def list_all(args: argparse.Namespace) -> int:
    robots = client.list_all(args, "list_robots")
    if args.json:
        output.write_json({"robots": robots})
    else:
        rows = [
            (r["name"], r["username"], r["expires_at"] or "never", r["used_at"] or "never")
            for r in robots
        ]
        output.write_table(("NAME", "SIGNS IN AS", "EXPIRES", "LAST USED"), rows)
    return 0


def remove(args: argparse.Namespace) -> int:
    client.call(args, "remove_robot", name=args.name)
    output.show({"removed": args.name}, f"Removed {args.name}.", as_json=args.json)
    return 0
