"""`moorage hold`: holds, which protect manifests from deletion."""

import argparse

from registry.cli.kit import client, output
from registry.errors import InputInvalidError


def add(args: argparse.Namespace) -> int:
    repository, at, digest = args.manifest.partition("@")
    if not at:
        raise InputInvalidError(f"{args.manifest!r} must be REPOSITORY@DIGEST")
    hold = client.call(
        args,
        "add_hold",
        repository=repository,
        digest=digest,
        reason=args.reason,
        expires=args.expires,
    )
    until = f" until {hold['expires_at']}" if hold["expires_at"] else ""
    output.show(hold, f"Hold {hold['id']} keeps {args.manifest}{until}.", as_json=args.json)
    return 0


def list_all(args: argparse.Namespace) -> int:
    holds = client.list_all(args, "list_holds")
    if args.json:
        output.write_json({"holds": holds})
    else:
        rows = [
            (
                hold["id"],
                f"{hold['repository']}@{hold['digest']}",
                hold["reason"],
                hold["created_by"],
                hold["expires_at"] or "never",
            )
            for hold in holds
        ]
        output.write_table(("ID", "MANIFEST", "REASON", "BY", "EXPIRES"), rows)
    return 0


def remove(args: argparse.Namespace) -> int:
    client.call(args, "remove_hold", id=args.id)
    output.show({"removed": args.id}, f"Removed hold {args.id}.", as_json=args.json)
    return 0
