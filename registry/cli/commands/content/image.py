"""`moorage image`: images, which are manifests with their tags and referenced content."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from registry.cli.commands.content.tag import split_reference
from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser
from registry.cli.kit.times import write_moment
from registry.units import round_size

if TYPE_CHECKING:
    from registry.operations.images import DeletedImage


def declare(images: Parser) -> None:
    """Declare the commands."""
    command = images.add_verb(
        "delete",
        delete,
        "Delete an image with its tags and all that belongs only to it",
        "moorage image delete team/app:v1 --dry-run",
        url=True,
    )
    command.explain(
        "Also deletes the manifests that nothing else needs: those that an index names, signatures "
        "and other referrers. Reports how many bytes that frees, and when."
    )
    command.add_argument(
        "image", metavar="REPOSITORY:TAG|REPOSITORY@DIGEST", help="the image to delete"
    )
    command.add_argument(
        "--all-tags", action="store_true", help="also delete the other tags of the image"
    )
    command.add_argument(
        "--override",
        action="store_true",
        help="also delete immutable tags; the audit log records this",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="report what would be deleted, and delete nothing"
    )


def delete(args: argparse.Namespace) -> int:
    from registry.operations.images import delete_image

    name, reference = split_reference(args.image)
    done = client.call(
        args,
        delete_image,
        repository=str(name),
        reference=str(reference),
        all_tags=args.all_tags,
        override=args.override,
        dry_run=args.dry_run,
    )
    output.show(done, _write(done, dry_run=args.dry_run), as_json=args.json)
    return 0


def _write(done: DeletedImage, *, dry_run: bool) -> str:
    tags = ", ".join(done.tags) or "none"
    more = len(done.manifests) - 1
    with_more = f", with {more} manifests that belong to it" if more else ""
    verb = "Would delete" if dry_run else "Deleted"
    lines = [f"{verb} {done.repository}@{done.digest} (tags: {tags}){with_more}."]
    lines.append(
        f"{round_size(done.bytes)} are freed after {write_moment(done.free_at)} "
        "(gc.grace_period), unless they are used again by then."
    )
    if done.tags and not dry_run:
        lines.append(
            f"To undo this until then: moorage tag restore {done.repository}:{done.tags[0]}"
        )
    return "\n".join(lines)
