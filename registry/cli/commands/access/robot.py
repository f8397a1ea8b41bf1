"""`moorage robot`: robot accounts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser

if TYPE_CHECKING:
    from registry.operations.robots import RobotSecret


def declare(robots: Parser) -> None:
    """Declare the commands."""
    command = robots.add_verb(
        "add",
        add,
        "Add a robot account and print its secret",
        "moorage robot add ci --expires 90d",
        url=True,
    )
    command.explain(
        "The secret is printed only this once. The robot signs in as robot+NAME, and has no "
        "permissions until you grant some to robot:NAME."
    )
    command.add_argument("name", metavar="NAME", help="name of the robot")
    command.add_argument(
        "--expires", metavar="DURATION", help="lifetime, such as 90d (default: unlimited)"
    )
    robots.add_verb("list", list_all, "List robot accounts", "moorage robot list", url=True)
    command = robots.add_verb(
        "rotate",
        rotate,
        "Give a robot a new secret and print it",
        "moorage robot rotate ci --overlap 1h",
        url=True,
    )
    command.add_argument("name", metavar="NAME", help="name of the robot")
    command.add_argument(
        "--expires", metavar="DURATION", help="lifetime, such as 90d (default: as before)"
    )
    command.add_argument(
        "--overlap",
        metavar="DURATION",
        default="24h",
        help="how long the old secrets stay valid (default 24h)",
    )
    command = robots.add_verb(
        "remove",
        remove,
        "Remove a robot account with its secrets and grants",
        "moorage robot remove ci",
        url=True,
    )
    command.add_argument("name", metavar="NAME", help="name of the robot")


def add(args: argparse.Namespace) -> int:
    from registry.operations.robots import create_robot

    made = client.call(args, create_robot, name=args.name, expires=args.expires)
    return _reveal(args, made)


def rotate(args: argparse.Namespace) -> int:
    from registry.operations.robots import rotate_robot

    made = client.call(
        args, rotate_robot, name=args.name, overlap=args.overlap, expires=args.expires
    )
    return _reveal(args, made)


def _reveal(args: argparse.Namespace, made: RobotSecret) -> int:
    """Print the secret alone, so that it can be piped."""
    output.show(made, made.secret, as_json=args.json)
    login = client.write_login(args, made.username)
    output.write_note(f"The secret is not shown again. To sign in: {login}")
    return 0


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.robots import list_robots

    robots = client.list_all(args, list_robots)
    if args.json:
        output.write_json({"robots": robots})
    else:
        rows = [
            (r.name, r.username, r.expires_at or "never", r.last_used_at or "never") for r in robots
        ]
        output.write_table(("NAME", "SIGNS IN AS", "EXPIRES", "LAST USED"), rows)
    return 0


def remove(args: argparse.Namespace) -> int:
    from registry.operations.robots import delete_robot

    client.call(args, delete_robot, name=args.name)
    output.show({"removed": args.name}, f"Removed {args.name}.", as_json=args.json)
    return 0
