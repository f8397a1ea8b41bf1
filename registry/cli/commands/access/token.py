"""`moorage token`: personal access tokens."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from registry.auth.policy.actions import parse_rights
from registry.auth.policy.patterns import RepositoryPattern
from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser
from registry.errors import InputInvalidError

if TYPE_CHECKING:
    from registry.operations.tokens import TokenScope


def declare(tokens: Parser) -> None:
    """Declare the commands."""
    command = tokens.add_verb(
        "add",
        add,
        "Add a personal access token and print it",
        "moorage token add alice laptop --scope 'team/**:pull,push' --expires 30d",
        url=True,
    )
    command.explain("The token is printed only this once. It is used in place of the password.")
    command.add_argument("user", metavar="USER", help="name of the user")
    command.add_argument("name", metavar="NAME", help="name of the token")
    command.add_argument(
        "--scope",
        metavar="PATTERN:ACTIONS",
        action="append",
        dest="scopes",
        help="limit of the token, such as 'team/**:pull,push'; may be repeated (default: all "
        "permissions of the user)",
    )
    command.add_argument(
        "--expires", metavar="DURATION", help="lifetime, such as 30d (default: unlimited)"
    )
    command = tokens.add_verb(
        "list", list_all, "List the tokens of a user", "moorage token list alice", url=True
    )
    command.add_argument("user", metavar="USER", help="name of the user")
    command = tokens.add_verb(
        "revoke", revoke, "Revoke a token, at once", "moorage token revoke alice laptop", url=True
    )
    command.add_argument("user", metavar="USER", help="name of the user")
    command.add_argument("name", metavar="NAME", help="name of the token")


def add(args: argparse.Namespace) -> int:
    from registry.operations.tokens import create_token

    scopes = None if args.scopes is None else [_read_scope(scope) for scope in args.scopes]
    made = client.call(
        args, create_token, user=args.user, name=args.name, scopes=scopes, expires=args.expires
    )
    output.show(made, made.secret, as_json=args.json)
    login = client.write_login(args, args.user)
    output.write_note(f"The token is not shown again. It is used in place of the password: {login}")
    return 0


def _read_scope(text: str) -> dict[str, Any]:
    """Parse `PATTERN:ACTIONS`. Raises InputInvalidError if the text is invalid."""
    pattern, colon, actions = text.rpartition(":")
    if not colon:
        raise InputInvalidError(f"{text!r} must be PATTERN:ACTIONS, such as 'team/**:pull,push'")
    RepositoryPattern.parse(pattern)
    parse_rights(actions.split(","))
    return {"pattern": pattern, "actions": actions.split(",")}


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.tokens import list_tokens

    tokens = client.call(args, list_tokens, user=args.user).items
    if args.json:
        output.write_json({"user": args.user, "tokens": tokens})
    else:
        rows = [
            (
                token.name,
                _write_scopes(token.scopes),
                token.expires_at or "never",
                token.last_used_at or "never",
            )
            for token in tokens
        ]
        output.write_table(("NAME", "SCOPES", "EXPIRES", "LAST USED"), rows)
    return 0


def _write_scopes(scopes: list[TokenScope] | None) -> str:
    if scopes is None:
        return "all"
    if not scopes:
        return "nothing"
    return " ".join(f"{scope.pattern}:{','.join(scope.actions)}" for scope in scopes)


def revoke(args: argparse.Namespace) -> int:
    from registry.operations.tokens import revoke_token

    client.call(args, revoke_token, user=args.user, name=args.name)
    output.show({"revoked": args.name}, f"Revoked {args.name} of {args.user}.", as_json=args.json)
    return 0
