"""`moorage repo`: repositories."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from registry import clock
from registry.cli.kit import confirmation, output, progress
from registry.cli.kit.local import find_override, read_names, run
from registry.cli.kit.parsing import Parser
from registry.oci.names import RepositoryName
from registry.units import round_size

if TYPE_CHECKING:
    pass


def declare(repositories: Parser) -> None:
    """Declare the commands."""
    repositories.add_verb("list", list_all, "List repositories", "moorage repo list")
    command = repositories.add_verb(
        "show", show, "Show what a repository contains", "moorage repo show team/app"
    )
    command.add_argument("repository", metavar="REPOSITORY", help="name of the repository")
    command = repositories.add_verb(
        "delete",
        delete,
        "Delete a repository with everything in it",
        "moorage repo delete team/app",
    )
    command.add_argument("repository", metavar="REPOSITORY", help="name of the repository")
    command.add_argument(
        "--override",
        action="store_true",
        help="also if a tag is immutable; the audit log records this",
    )
    confirmation.add_option(command)


def list_all(args: argparse.Namespace) -> int:
    with progress.wait("reading the repositories"):
        names = run(args, lambda registry: read_names(registry.repositories.list_names))
    if args.json:
        output.write_json({"repositories": names})
    for name in [] if args.json else names:
        output.write(name)
    return 0


def show(args: argparse.Namespace) -> int:
    name = RepositoryName.parse(args.repository)
    summary = run(args, lambda registry: registry.repositories.get(name))
    shown = {
        "name": str(name),
        "created_at": clock.rfc3339(summary.repository.created_at),
        **asdict(summary.counts),
    }
    if args.json:
        output.write_json(shown)
    else:
        output.write_table(("FIELD", "VALUE"), list(shown.items()))
    return 0


def delete(args: argparse.Namespace) -> int:
    from registry.auth.policy.principals import OPERATOR

    name = RepositoryName.parse(args.repository)
    override = find_override(args)
    if confirmation.is_needed(args):
        held = run(args, lambda registry: registry.repositories.get(name)).counts
        tags, manifests = output.count(held.tags, "tag"), output.count(held.manifests, "manifest")
        confirmation.require(
            f"This deletes {name} with {tags}, {manifests} and {output.count(held.blobs, 'blob')} "
            f"({round_size(held.bytes)})."
        )
    with progress.wait(f"deleting {name}"):
        counts = run(args, lambda registry: registry.repositories.delete(name, OPERATOR, override))
    if args.json:
        output.write_json({"deleted": str(name), **asdict(counts)})
    else:
        output.write(f"Deleted {name}: {counts.tags} tags, {counts.manifests} manifests.")
    return 0
