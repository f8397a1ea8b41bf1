"""`moorage key`: signing keys of tokens."""

import argparse

from registry.cli.kit import client, output


def list_all(args: argparse.Namespace) -> int:
    keys = client.call(args, "list_keys")["items"]
    if args.json:
        output.write_json({"keys": keys})
    else:
        rows = [(key["kid"], key["state"], key["created_at"]) for key in keys]
        output.write_table(("KID", "STATE", "CREATED"), rows)
    return 0


def rotate(args: argparse.Namespace) -> int:
    key = client.call(args, "rotate_key")
    output.show(key, f"Tokens are signed with {key['kid']} from now on.", as_json=args.json)
    return 0


def revoke(args: argparse.Namespace) -> int:
    client.call(args, "revoke_key", kid=args.kid)
    said = f"Tokens that {args.kid} has signed are refused."
    output.show({"revoked": args.kid}, said, as_json=args.json)
    return 0
