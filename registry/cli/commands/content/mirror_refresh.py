"""`moorage mirror refresh`, and what a mirror holds back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from registry.cli.commands.content.mirror_eviction import find_mirror
from registry.cli.commands.content.tag import split_tag
from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser
from registry.cli.kit.times import write_moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.operations.mirrors.held import HeldDigest
    from registry.operations.mirrors.refresh import RefreshedTag

_SHOWN = 20


def declare(mirrors: Parser) -> None:
    """Declare the command."""
    command = mirrors.add_verb(
        "refresh",
        refresh,
        "Look up a tag at the upstream now",
        "moorage mirror refresh docker.io/library/alpine:3.20",
        url=True,
    )
    command.explain("The time since the last look does not matter, but --cooldown applies.")
    command.add_argument("tag", metavar="REPOSITORY:TAG", help="the tag")


def refresh(args: argparse.Namespace) -> int:
    done = client.run(args, lambda operations: _refresh(args, operations))
    place = f"{done.repository}:{done.tag}"
    said = f"{place} is still {done.new}."
    if done.old != done.new:
        said = f"{place} was {done.old or 'not cached'}, and is now {done.new}."
    output.show(done, said, as_json=args.json)
    return 0


async def _refresh(args: argparse.Namespace, operations: client.OperationClient) -> RefreshedTag:
    from registry.operations.mirrors.mirrors import list_mirrors
    from registry.operations.mirrors.refresh import refresh_tag

    name, tag = split_tag(args.tag)
    mirror = find_mirror((await operations.send(list_mirrors)).items, str(name))
    return await operations.send(refresh_tag, name=mirror.name, repository=str(name), tag=str(tag))


def list_held(held: Sequence[HeldDigest]) -> list[tuple[str, str]]:
    """Return the lines of `moorage mirror show` about what is held back."""
    lines = [
        (
            "held back",
            f"{each.repository}:{each.tag} {each.digest} until {write_moment(each.held_until)}",
        )
        for each in held[:_SHOWN]
    ]
    if len(held) > _SHOWN:
        lines.append(("held back", f"{len(held) - _SHOWN} more"))
    return lines
