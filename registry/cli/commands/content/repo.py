"""`moorage repo`: repositories."""

import argparse

from registry.cli.kit import client, confirmation, output
from registry.cli.kit.parsing import Parser
from registry.units import round_size


def declare(repositories: Parser) -> None:
    """Declare the commands."""
    repositories.add_verb("list", list_all, "List repositories", "moorage repo list", url=True)
    command = repositories.add_verb(
        "show", show, "Show what a repository contains", "moorage repo show team/app", url=True
    )
    command.add_argument("repository", metavar="REPOSITORY", help="name of the repository")
    command = repositories.add_verb(
        "delete",
        delete,
        "Delete a repository with everything in it",
        "moorage repo delete team/app",
        url=True,
    )
    command.add_argument("repository", metavar="REPOSITORY", help="name of the repository")
    command.add_argument(
        "--override",
        action="store_true",
        help="also if a tag is immutable; the audit log records this",
    )
    confirmation.add_option(command)


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.repositories import list_repositories

    names = client.list_all(args, list_repositories)
    if args.json:
        output.write_json({"repositories": names})
    for name in [] if args.json else names:
        output.write(name)
    return 0


def show(args: argparse.Namespace) -> int:
    from registry.operations.repositories import get_repository

    found = client.call(args, get_repository, repository=args.repository)
    if args.json:
        output.write_json(found)
    else:
        output.write_table(("FIELD", "VALUE"), list(output.to_json(found).items()))
    return 0


def delete(args: argparse.Namespace) -> int:
    from registry.operations.repositories import delete_repository

    if confirmation.is_needed(args):
        _confirm(args)
    done = client.call(args, delete_repository, repository=args.repository, override=args.override)
    text = f"Deleted {done.repository}: {done.tags} tags, {done.manifests} manifests."
    output.show(done, text, as_json=args.json)
    return 0


def _confirm(args: argparse.Namespace) -> None:
    """Show what the repository contains, and ask for confirmation."""
    from registry.operations.repositories import get_repository

    held = client.call(args, get_repository, repository=args.repository)
    tags, manifests = output.count(held.tags, "tag"), output.count(held.manifests, "manifest")
    confirmation.require(
        f"This deletes {held.name} with {tags}, {manifests} and {output.count(held.blobs, 'blob')} "
        f"({round_size(held.bytes)})."
    )
