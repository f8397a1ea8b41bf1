"""`moorage user`: users."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from registry.auth.policy.subjects import parse_new_user_name
from registry.cli.kit import client, confirmation, output, passwords
from registry.cli.kit.parsing import Parser
from registry.errors import InputInvalidError

if TYPE_CHECKING:
    from registry.operations.users import User


def declare(users: Parser) -> None:
    """Declare the commands."""
    add_user = users.add_verb(
        "add",
        add,
        "Add a user",
        "moorage user add alice",
        "moorage user add ci@example.org --no-password",
    )
    add_user.explain(
        "Asks for the password twice. The first user creates the data directory and the database "
        "if they do not exist; from then on, everyone must sign in."
    )
    add_user.add_argument("name", metavar="NAME", help="name of the user")
    add_user.add_argument("--admin", action="store_true", help="let the user do everything")
    add_user.add_argument(
        "--no-password", action="store_true", help="let the user sign in with tokens only"
    )
    users.add_verb("list", list_all, "List users", "moorage user list", url=True)
    set_password = users.add_verb(
        "passwd", passwd, "Set the password of a user", "moorage user passwd alice"
    )
    set_password.add_argument("name", metavar="NAME", help="name of the user")
    for command in (add_user, set_password):
        command.add_argument(
            "--password-stdin",
            action="store_true",
            help="read the new password from standard input",
        )
        command.add_remote(stdin=False)
    command = users.add_verb(
        "change",
        change,
        "Make a user an admin, or revoke this",
        "moorage user change alice --admin",
        "moorage user change alice --no-admin",
        url=True,
    )
    command.add_argument("name", metavar="NAME", help="name of the user")
    command.add_argument(
        "--admin",
        action=argparse.BooleanOptionalAction,
        required=True,
        help="whether the user may do everything",
    )
    for verb, work, summary in (
        ("disable", disable, "Lock out a user and the user's tokens, at once"),
        ("enable", enable, "Let a disabled user sign in again"),
        ("remove", remove, "Remove a user with all tokens and grants of the user"),
    ):
        command = users.add_verb(verb, work, summary, f"moorage user {verb} alice", url=True)
        command.add_argument("name", metavar="NAME", help="name of the user")
    confirmation.add_option(command)
    command = users.add_verb(
        "import",
        import_file,
        "Add the users of an htpasswd file with bcrypt hashes",
        "moorage user import htpasswd",
        url=True,
    )
    command.explain("Users that exist already stay as they are.")
    command.add_argument("file", metavar="FILE", help="file written by htpasswd -B")
    command.add_argument(
        "--skip", action="store_true", help="leave out the lines that cannot be imported"
    )


def add(args: argparse.Namespace) -> int:
    from registry.operations.users import create_user, list_users

    parse_new_user_name(args.name)  # fail before the data directory is created
    password = None
    if not args.no_password:
        password = passwords.read_new(args.name, from_stdin=args.password_stdin)

    async def work(operations: client.OperationClient) -> tuple[User, bool]:
        first = not (await operations.send(list_users, n=1)).items
        user = await operations.send(
            create_user, name=args.name, password=password, admin=args.admin
        )
        return user, first

    user, first = client.run(args, work, create=True)
    output.show(user, f"Added {args.name}.", as_json=args.json)
    if first:
        output.write_note(
            "This is the first user: from now on, everyone must sign in to push and pull. To give "
            "users permissions: moorage grant add"
        )
    return 0


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.users import list_users

    users = client.list_all(args, list_users)
    if args.json:
        output.write_json({"users": users})
    else:
        rows = [
            (u.name, "admin" if u.admin else "", "disabled" if u.disabled else "") for u in users
        ]
        output.write_table(("NAME", "ADMIN", "STATE"), rows)
    return 0


def passwd(args: argparse.Namespace) -> int:
    from registry.operations.users import set_password

    password = passwords.read_new(args.name, from_stdin=args.password_stdin)

    async def work(operations: client.OperationClient) -> None:
        current = operations.password if operations.name == args.name else None
        await operations.send(set_password, user=args.name, password=password, current=current)

    client.run(args, work)
    output.show({"changed": args.name}, f"{args.name} has a new password.", as_json=args.json)
    return 0


def change(args: argparse.Namespace) -> int:
    from registry.operations.users import update_user

    user = client.call(args, update_user, name=args.name, admin=args.admin)
    now = "is an admin" if args.admin else "is not an admin"
    output.show(user, f"{args.name} {now}.", as_json=args.json)
    return 0


def disable(args: argparse.Namespace) -> int:
    from registry.operations.users import update_user

    user = client.call(args, update_user, name=args.name, disabled=True)
    output.show(user, f"{args.name} can no longer sign in.", as_json=args.json)
    return 0


def enable(args: argparse.Namespace) -> int:
    from registry.operations.users import update_user

    user = client.call(args, update_user, name=args.name, disabled=False)
    output.show(user, f"{args.name} can sign in again.", as_json=args.json)
    return 0


def remove(args: argparse.Namespace) -> int:
    from registry.operations.grants import list_grants
    from registry.operations.tokens import list_tokens
    from registry.operations.users import delete_user, get_user

    async def describe(operations: client.OperationClient) -> str:
        user = await operations.send(get_user, name=args.name)
        tokens = len((await operations.send(list_tokens, user=args.name)).items)
        grants = len((await operations.send(list_grants, subject=f"user:{args.name}")).items)
        kind = "admin" if user.admin else "user"
        held = f"{output.count(tokens, 'token')} and {output.count(grants, 'grant')}"
        return f"This removes the {kind} {args.name} with {held}."

    if confirmation.is_needed(args):
        confirmation.require(client.run(args, describe))
    client.call(args, delete_user, name=args.name)
    output.show({"removed": args.name}, f"Removed {args.name}.", as_json=args.json)
    return 0


def import_file(args: argparse.Namespace) -> int:
    from registry.operations.users import import_users

    try:
        text = Path(args.file).read_text("utf-8")
    except OSError as error:
        raise InputInvalidError(f"{args.file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputInvalidError(f"{args.file} is not UTF-8") from error
    imported = client.call(args, import_users, htpasswd=text, skip_invalid=args.skip or None)
    refused = imported.invalid
    said = f"Added {len(imported.added)}; {len(imported.existing)} existed already."
    if refused:
        said = "\n  ".join([f"{said} {output.count(len(refused), 'line')} left out:", *refused])
    output.show(imported, said, as_json=args.json)
    return 0
