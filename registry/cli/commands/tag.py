"""`moorage tag`: tags."""

import argparse

from registry import clock
from registry.auth.policy.principals import OPERATOR
from registry.cli.kit import client, output
from registry.cli.kit.local import find_override, run
from registry.cli.kit.times import read_moment
from registry.errors import TagInvalidError
from registry.oci.names import RepositoryName
from registry.oci.references import Reference, Tag
from registry.services.services import Services
from storage.digest import Digest

_PAGE = 1000


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
    name = RepositoryName.parse(args.repository)

    async def work(registry: Services) -> list[str]:
        names: list[str] = []
        more = True
        while more:
            some = await registry.tags.list_names(name, _PAGE, names[-1] if names else "")
            names += some
            more = len(some) == _PAGE
        return names

    names = run(args, work)
    if args.json:
        output.write_json({"name": str(name), "tags": names})
    for tag in [] if args.json else names:
        output.write(tag)
    return 0


def copy(args: argparse.Namespace) -> int:
    source, reference = split_reference(args.source)
    target, tag = split_tag(args.target)
    digest = run(
        args,
        lambda registry: registry.tags.copy(
            source, reference, target, tag, OPERATOR, override=find_override(args)
        ),
    )
    if args.json:
        output.write_json({"name": str(target), "tag": str(tag), "digest": str(digest)})
    else:
        output.write(f"{target}:{tag} is {digest}")
    return 0


def history(args: argparse.Namespace) -> int:
    name, tag = split_tag(args.tag)
    found = client.call(args, "list_tag_history", repository=str(name), tag=str(tag))
    if args.json:
        output.write_json(found)
    else:
        cells = [
            [line["at"], line["actor"], line["digest"] or "deleted", line["state"] or "-"]
            for line in found["history"]
        ]
        output.write_table(("AT", "BY", "DIGEST", "MANIFEST"), cells)
    return 0


def restore(args: argparse.Namespace) -> int:
    name, tag = split_tag(args.tag)
    done = client.call(
        args,
        "restore_tag",
        repository=str(name),
        tag=str(tag),
        at=None if args.at is None else clock.rfc3339(read_moment(args.at)),
        digest=args.digest,
        override=args.override,
    )
    put_back = f", with {done['manifests']} manifests put back" if done["manifests"] else ""
    output.show(done, f"{name}:{tag} is {done['digest']}{put_back}", as_json=args.json)
    return 0


def delete(args: argparse.Namespace) -> int:
    name, tag = split_tag(args.tag)
    override = find_override(args)

    async def work(registry: Services) -> Digest:
        digest = await registry.tags.get(name, tag)
        await registry.manifests.delete(name, tag, OPERATOR, override=override)
        return digest

    digest = run(args, work)
    if args.json:
        output.write_json({"deleted": f"{name}:{tag}"})
    else:
        output.write(f"Deleted {name}:{tag}. Its manifest stays, and so do its bytes.")
        output.write_note(f"To delete the image as well: moorage image delete {name}@{digest}")
    return 0
