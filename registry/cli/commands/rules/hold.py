"""`moorage hold`: holds, which protect manifests from deletion."""

import argparse

from registry.cli.kit import client, output
from registry.cli.kit.parsing import EXAMPLE_DIGEST, Parser
from registry.errors import InputInvalidError


def declare(holds: Parser) -> None:
    """Declare the commands."""
    command = holds.add_verb(
        "add",
        add,
        "Protect a manifest and everything that it names from deletion",
        f"moorage hold add team/app@{EXAMPLE_DIGEST} --reason 'case 7'",
        url=True,
    )
    command.add_argument(
        "manifest", metavar="REPOSITORY@DIGEST", help="the manifest, such as team/app@sha256:…"
    )
    command.add_argument(
        "--reason", metavar="TEXT", required=True, help="why it is held, visible to all"
    )
    command.add_argument(
        "--expires", metavar="DURATION", help="duration, such as 90d (default: until removed)"
    )
    holds.add_verb("list", list_all, "List holds", "moorage hold list", url=True)
    command = holds.add_verb("remove", remove, "Remove a hold", "moorage hold remove 12", url=True)
    command.add_argument("id", metavar="ID", help="ID of the hold, as listed")


def add(args: argparse.Namespace) -> int:
    from registry.operations.holds import create_hold

    repository, at, digest = args.manifest.partition("@")
    if not at:
        raise InputInvalidError(f"{args.manifest!r} must be REPOSITORY@DIGEST")
    hold = client.call(
        args,
        create_hold,
        repository=repository,
        digest=digest,
        reason=args.reason,
        expires=args.expires,
    )
    until = f" until {hold.expires_at}" if hold.expires_at else ""
    output.show(hold, f"Hold {hold.id} keeps {args.manifest}{until}.", as_json=args.json)
    return 0


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.holds import list_holds

    holds = client.list_all(args, list_holds)
    if args.json:
        output.write_json({"holds": holds})
    else:
        rows = [
            (
                hold.id,
                f"{hold.repository}@{hold.digest}",
                hold.reason,
                hold.created_by,
                hold.expires_at or "never",
            )
            for hold in holds
        ]
        output.write_table(("ID", "MANIFEST", "REASON", "BY", "EXPIRES"), rows)
    return 0


def remove(args: argparse.Namespace) -> int:
    from registry.operations.holds import delete_hold

    client.call(args, delete_hold, id=args.id)
    output.show({"removed": args.id}, f"Removed hold {args.id}.", as_json=args.json)
    return 0
