"""`moorage key`: signing keys of tokens."""

import argparse

from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser


def declare(keys: Parser) -> None:
    """Declare the commands."""
    keys.add_verb("list", list_all, "List the keys that sign tokens", "moorage key list", url=True)
    keys.add_verb(
        "rotate", rotate, "Sign with a new key from now on", "moorage key rotate", url=True
    )
    command = keys.add_verb(
        "revoke",
        revoke,
        "Reject all tokens that a key has signed, at once",
        "moorage key revoke 4b1f9c0d2a7e",
        url=True,
    )
    command.add_argument("kid", metavar="KID", help="ID of the key, as listed")


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.keys import list_keys

    keys = client.call(args, list_keys).items
    if args.json:
        output.write_json({"keys": keys})
    else:
        rows = [(key.kid, key.state, key.created_at) for key in keys]
        output.write_table(("KID", "STATE", "CREATED"), rows)
    return 0


def rotate(args: argparse.Namespace) -> int:
    from registry.operations.keys import rotate_key

    key = client.call(args, rotate_key)
    output.show(key, f"New tokens are signed with {key.kid}.", as_json=args.json)
    return 0


def revoke(args: argparse.Namespace) -> int:
    from registry.operations.keys import revoke_key

    client.call(args, revoke_key, kid=args.kid)
    said = f"Tokens signed with {args.kid} are now rejected."
    output.show({"revoked": args.kid}, said, as_json=args.json)
    return 0
