"""`moorage tag`: tags."""

import argparse

from registry import clock
from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser
from registry.cli.kit.times import read_moment
from registry.errors import TagInvalidError
from registry.oci.names import RepositoryName
from registry.oci.references import Reference, Tag
from storage.digest import Digest

_OVERRIDE = "also if the tag is immutable; the audit log records this"


def declare(tags: Parser) -> None:
    """Declare the commands."""
    command = tags.add_verb(
        "list", list_all, "List the tags of a repository", "moorage tag list team/app", url=True
    )
    command.add_argument("repository", metavar="REPOSITORY", help="name of the repository")
    command = tags.add_verb(
        "copy",
        copy,
        "Tag a manifest, in the same repository or in another one",
        "moorage tag copy team/app:v1 team/app:stable",
        "moorage tag copy team/app:v1 prod/app:v1",
        url=True,
    )
    command.add_argument(
        "source", metavar="REPOSITORY:TAG|REPOSITORY@DIGEST", help="the manifest to tag"
    )
    command.add_argument("target", metavar="REPOSITORY:TAG", help="the new tag")
    command.add_argument("--override", action="store_true", help=_OVERRIDE)
    command = tags.add_verb(
        "history",
        history,
        "List the manifests that a tag has pointed at",
        "moorage tag history team/app:stable",
        url=True,
    )
    command.add_argument("tag", metavar="REPOSITORY:TAG", help="the tag")
    command = tags.add_verb(
        "restore",
        restore,
        "Point a tag back at an earlier manifest",
        "moorage tag restore team/app:stable",
        "moorage tag restore team/app:stable --at 24h",
        url=True,
    )
    command.add_argument("tag", metavar="REPOSITORY:TAG", help="the tag")
    target = command.add_mutually_exclusive_group()
    target.add_argument(
        "--at",
        metavar="WHEN",
        help="the manifest at this time (2026-11-23T19:12:00Z) or that long ago (24h); default: "
        "before the tag was last moved or deleted",
    )
    target.add_argument("--digest", metavar="DIGEST", help="the manifest with this digest")
    command.add_argument("--override", action="store_true", help=_OVERRIDE)
    command = tags.add_verb(
        "delete",
        delete,
        "Delete a tag, but not its manifest",
        "moorage tag delete team/app:stable",
        url=True,
    )
    command.explain("To delete an image, use `moorage image delete`.")
    command.add_argument("tag", metavar="REPOSITORY:TAG", help="the tag")
    command.add_argument("--override", action="store_true", help=_OVERRIDE)


def split_reference(text: str) -> tuple[RepositoryName, Reference]:
    """Parse `REPOSITORY:TAG` or `REPOSITORY@DIGEST`. Raises the errors of the parts."""
    name, at, digest = text.partition("@")
    if at:
        return RepositoryName.parse(name), Digest.parse(digest)
    return split_tag(text)


def split_tag(text: str) -> tuple[RepositoryName, Tag]:
    """Parse `REPOSITORY:TAG`. Raises the errors of the parts."""
    name, colon, tag = text.rpartition(":")
    if not colon:
        raise TagInvalidError(f"{text!r} must be REPOSITORY:TAG")
    return RepositoryName.parse(name), Tag.parse(tag)


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.tags import list_tags

    name = RepositoryName.parse(args.repository)
    tags = client.list_all(args, list_tags, repository=str(name))
    if args.json:
        output.write_json({"repository": str(name), "tags": tags})
    for tag in [] if args.json else tags:
        output.write(tag)
    return 0


def copy(args: argparse.Namespace) -> int:
    from registry.operations.tags import copy_tag

    source, reference = split_reference(args.source)
    target, tag = split_tag(args.target)
    done = client.call(
        args,
        copy_tag,
        source_repository=str(source),
        source_reference=str(reference),
        repository=str(target),
        tag=str(tag),
        override=args.override,
    )
    output.show(done, f"{target}:{tag} points at {done.digest}", as_json=args.json)
    return 0


def history(args: argparse.Namespace) -> int:
    from registry.operations.tags import list_tag_history

    name, tag = split_tag(args.tag)
    found = client.call(args, list_tag_history, repository=str(name), tag=str(tag))
    if args.json:
        output.write_json(found)
    else:
        cells = [
            [line.at, line.actor, line.digest or "deleted", line.state or "-"]
            for line in found.history
        ]
        output.write_table(("AT", "BY", "DIGEST", "MANIFEST"), cells)
    return 0


def restore(args: argparse.Namespace) -> int:
    from registry.operations.tags import restore_tag

    name, tag = split_tag(args.tag)
    done = client.call(
        args,
        restore_tag,
        repository=str(name),
        tag=str(tag),
        at=None if args.at is None else clock.rfc3339(read_moment(args.at)),
        digest=args.digest,
        override=args.override,
    )
    put_back = f", with {done.manifests} manifests restored" if done.manifests else ""
    output.show(done, f"{name}:{tag} points at {done.digest}{put_back}", as_json=args.json)
    return 0


def delete(args: argparse.Namespace) -> int:
    from registry.operations.tags import delete_tag

    name, tag = split_tag(args.tag)
    done = client.call(args, delete_tag, repository=str(name), tag=str(tag), override=args.override)
    output.show(done, f"Deleted {name}:{tag}. Its manifest and bytes stay.", as_json=args.json)
    if not args.json:
        output.write_note(f"To delete the image as well: moorage image delete {name}@{done.digest}")
    return 0
