"""`moorage mirror evict`, and the size of a mirror."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from registry.cli.commands.content.tag import split_reference
from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser
from registry.cli.kit.times import write_moment
from registry.errors import InputInvalidError
from registry.units import round_size

if TYPE_CHECKING:
    from registry.operations.mirrors.eviction import Evicted, MirrorUsage
    from registry.operations.mirrors.mirrors import MirrorInfo


def declare(mirrors: Parser) -> None:
    """Declare the command."""
    command = mirrors.add_verb(
        "evict",
        evict,
        "Delete cached images, which the next pull fetches again",
        "moorage mirror evict docker.io/library/alpine:3.20",
        "moorage mirror evict docker.io/library/alpine --dry-run",
        "moorage mirror evict --all",
        url=True,
    )
    command.explain(
        "An image goes with its tags and with everything that only it needs. Stays: what has a "
        "hold, an immutable tag or a tag that was set in this registry, and what is being fetched."
    )
    command.add_argument(
        "ref",
        nargs="?",
        metavar="REPOSITORY[:TAG|@DIGEST]",
        help="an image, or all images of a repository",
    )
    command.add_argument("--all", action="store_true", help="evict all images of all mirrors")
    command.add_argument(
        "--dry-run", action="store_true", help="report what would be evicted, and evict nothing"
    )


def evict(args: argparse.Namespace) -> int:
    if bool(args.ref) == args.all:
        raise InputInvalidError("give either REPOSITORY[:TAG|@DIGEST] or --all")
    done = client.run(args, lambda operations: _evict(args, operations))
    evicted = [each for page in done for each in page.evicted]
    kept = [each for page in done for each in page.kept]
    if args.json:
        output.write_json({"evicted": evicted, "kept": kept})
        return 0
    verb = "Would evict" if args.dry_run else "Evicted"
    for image in evicted:
        tags = ", ".join(image.tags) or "none"
        output.write(f"{verb} {image.repository}@{image.digest} (tags: {tags}).")
    for left in kept:
        output.write(f"{left.repository}@{left.digest} stays: {left.reason}.")
    size = round_size(sum(image.bytes for image in evicted))
    output.write(f"{verb} {len(evicted)} images, {size}.")
    return 0


async def _evict(args: argparse.Namespace, operations: client.OperationClient) -> list[Evicted]:
    from registry.operations.mirrors.eviction import evict_images
    from registry.operations.mirrors.mirrors import list_mirrors

    mirrors = (await operations.send(list_mirrors)).items
    repository, reference = None, None
    if args.ref:
        repository, reference = _split(args.ref)
        mirrors = [find_mirror(mirrors, repository)]
    pages: list[Evicted] = []
    for mirror in mirrors:
        last: str | None = ""
        while last is not None:
            page = await operations.send(
                evict_images,
                name=mirror.name,
                repository=repository,
                reference=reference,
                last=last,
                dry_run=args.dry_run,
            )
            pages.append(page)
            last = page.next
    return pages


def _split(text: str) -> tuple[str, str | None]:
    """Return the repository, and the tag or digest if the text has one."""
    if "@" not in text and ":" not in text.rpartition("/")[2]:
        return text, None
    name, reference = split_reference(text)
    return str(name), str(reference)


def find_mirror(mirrors: list[MirrorInfo], repository: str) -> MirrorInfo:
    """Return the mirror of a repository. Raises InputInvalidError."""
    for mirror in mirrors:
        if repository.startswith(f"{mirror.prefix}/"):
            return mirror
    raise InputInvalidError(f"{repository:.255} is not below the prefix of a mirror")


def list_usage(usage: MirrorUsage, max_size: str) -> list[tuple[str, str]]:
    """Return the lines of `moorage mirror show` about the size of a mirror."""
    if usage.bytes is None or usage.measured_at is None:
        return [("size", "not measured yet")]
    most = f" of {max_size}" if max_size else ""
    return [("size", f"{round_size(usage.bytes)}{most}, {write_moment(usage.measured_at)}")]
