"""`moorage group`: groups of users."""

import argparse
from typing import Any

from registry.cli.kit import client, output


def add(args: argparse.Namespace) -> int:
    group = client.call(args, "add_group", name=args.name)
    output.show(group, f"Added {args.name}.", as_json=args.json)
    return 0


def list_all(args: argparse.Namespace) -> int:
    groups = client.list_all(args, "list_groups")
    if args.json:
        output.write_json({"groups": groups})
    else:
        rows = [(group["name"], ", ".join(group["members"])) for group in groups]
        output.write_table(("NAME", "MEMBERS"), rows)
    return 0


def remove(args: argparse.Namespace) -> int:
    client.call(args, "remove_group", name=args.name)
    output.show({"removed": args.name}, f"Removed {args.name}.", as_json=args.json)
    return 0


def join(args: argparse.Namespace) -> int:
    return _change(args, "add_member")


def leave(args: argparse.Namespace) -> int:
    return _change(args, "remove_member")


def _change(args: argparse.Namespace, operation: str) -> int:
    async def work(desk: client.OperationClient) -> Any:
        group = None
        for user in args.users:
            group = await desk.send(operation, group=args.group, user=user)
        return group

    group = client.run(args, work)
    members = ", ".join(group["members"]) or "nobody"
    output.show(group, f"{args.group}: {members}", as_json=args.json)
    return 0
