"""`moorage group`: groups of users."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser

if TYPE_CHECKING:
    from registry.operations.groups import Group


def declare(groups: Parser) -> None:
    """Declare the commands."""
    command = groups.add_verb("add", add, "Add a group", "moorage group add devs", url=True)
    command.add_argument("name", metavar="NAME", help="name of the group")
    groups.add_verb(
        "list", list_all, "List groups with their members", "moorage group list", url=True
    )
    command = groups.add_verb(
        "remove", remove, "Remove a group with its grants", "moorage group remove devs", url=True
    )
    command.add_argument("name", metavar="NAME", help="name of the group")
    for verb, work, summary in (
        ("join", join, "Add users to a group"),
        ("leave", leave, "Remove users from a group"),
    ):
        command = groups.add_verb(
            verb, work, summary, f"moorage group {verb} devs alice bob", url=True
        )
        command.add_argument("group", metavar="GROUP", help="name of the group")
        command.add_argument("users", metavar="USER", nargs="+", help="name of a user")


def add(args: argparse.Namespace) -> int:
    from registry.operations.groups import create_group

    group = client.call(args, create_group, name=args.name)
    output.show(group, f"Added {args.name}.", as_json=args.json)
    return 0


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.groups import list_groups

    groups = client.list_all(args, list_groups)
    if args.json:
        output.write_json({"groups": groups})
    else:
        rows = [(group.name, ", ".join(group.members)) for group in groups]
        output.write_table(("NAME", "MEMBERS"), rows)
    return 0


def remove(args: argparse.Namespace) -> int:
    from registry.operations.groups import delete_group

    client.call(args, delete_group, name=args.name)
    output.show({"removed": args.name}, f"Removed {args.name}.", as_json=args.json)
    return 0


def join(args: argparse.Namespace) -> int:
    from registry.operations.groups import add_member

    return _change(args, add_member)


def leave(args: argparse.Namespace) -> int:
    from registry.operations.groups import remove_member

    return _change(args, remove_member)


def _change(args: argparse.Namespace, operation: client.Handler[Group]) -> int:
    async def work(operations: client.OperationClient) -> Group:
        changed = [
            await operations.send(operation, group=args.group, user=user) for user in args.users
        ]
        return changed[-1]

    group = client.run(args, work)
    members = ", ".join(group.members) or "nobody"
    output.show(group, f"{args.group}: {members}", as_json=args.json)
    return 0
