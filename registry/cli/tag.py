"""`moorage tag`: tags."""

import argparse

from registry import clock
from registry.auth.principals import OPERATOR
from registry.cli import output
from registry.cli.moments import read_moment
from registry.cli.opened import find_override, run
from registry.errors import TagInvalidError
from registry.oci.names import RepositoryName
from registry.oci.references import Reference, Tag
from registry.services.history import Moment
from registry.services.registry import Registry
from storage.digest import Digest

_PAGE = 1000


def _split(text: str) -> tuple[RepositoryName, Reference]:
    """Read `REPOSITORY:TAG` or `REPOSITORY@DIGEST`; errors of their parts."""
    name, at, digest = text.partition("@")
    if at:
        return RepositoryName.parse(name), Digest.parse(digest)
    return split_tag(text)


def split_tag(text: str) -> tuple[RepositoryName, Tag]:
    """Read `REPOSITORY:TAG`; errors of its parts."""
    name, colon, tag = text.rpartition(":")
    if not colon:
        raise TagInvalidError(f"{text!r} must be REPOSITORY:TAG")
    return RepositoryName.parse(name), Tag.parse(tag)


def list_all(args: argparse.Namespace) -> int:
    name = RepositoryName.parse(args.repository)

    async def work(registry: Registry) -> list[str]:
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
    source, reference = _split(args.source)
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
    moments = run(args, lambda registry: registry.history.list_of_tag(name, tag, _PAGE))
    shown = [_show(moment) for moment in moments]
    if args.json:
        output.write_json({"name": str(name), "tag": str(tag), "history": shown})
    else:
        cells = [
            [line["at"], line["actor"], line["digest"] or "deleted", line["state"] or "-"]
            for line in shown
        ]
        output.write_table(("AT", "BY", "DIGEST", "MANIFEST"), cells)
    return 0


def _show(moment: Moment) -> dict[str, str | None]:
    row = moment.change
    return {
        "at": clock.rfc3339(row.at),
        "actor": row.actor,
        "change": row.kind.value,
        "digest": str(row.digest) if row.digest else None,
        "old_digest": str(row.old_digest) if row.old_digest else None,
        "state": moment.state,
    }


def restore(args: argparse.Namespace) -> int:
    name, tag = split_tag(args.tag)
    at = None if args.at is None else read_moment(args.at)
    digest = None if args.digest is None else Digest.parse(args.digest)
    done = run(
        args,
        lambda registry: registry.history.restore(
            name, tag, OPERATOR, at=at, digest=digest, override=find_override(args)
        ),
    )
    shown = {"name": str(name), "tag": str(tag), "digest": str(done.digest)}
    put_back = f", with {done.manifests} manifests put back" if done.manifests else ""
    said = f"{name}:{tag} is {done.digest}{put_back}"
    output.show({**shown, "manifests": done.manifests}, said, as_json=args.json)
    return 0


def delete(args: argparse.Namespace) -> int:
    name, tag = split_tag(args.tag)
    override = find_override(args)
    run(
        args,
        lambda registry: registry.manifests.delete(name, tag, OPERATOR, override=override),
    )
    if args.json:
        output.write_json({"deleted": f"{name}:{tag}"})
    else:
        output.write(f"Deleted {name}:{tag}. Its manifest stays.")
    return 0
