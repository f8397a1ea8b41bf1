"""`moorage mirror`: other registries whose images this one fetches and keeps."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from registry.cli.commands.content import (
    mirror_clients,
    mirror_eviction,
    mirror_refresh,
    mirror_status,
    mirror_sync,
)
from registry.cli.kit import client, confirmation, output, passwords
from registry.cli.kit.parsing import Parser
from registry.errors import InputInvalidError
from registry.services.mirrors.option_fields import FIELDS, Kind
from registry.services.mirrors.presets import PRESETS

if TYPE_CHECKING:
    from registry.operations.mirrors.eviction import MirrorUsage
    from registry.operations.mirrors.held import HeldDigest
    from registry.operations.mirrors.mirrors import MirrorInfo
    from registry.operations.mirrors.status import MirrorStatus
    from registry.operations.mirrors.syncs import ScheduleInfo

_ARGUMENTS: dict[Kind, dict[str, Any]] = {
    Kind.TEXT: {},
    Kind.TEXTS: {"nargs": "+", "action": "extend"},
    Kind.DURATION: {},
    Kind.COUNT: {"type": int},
    Kind.SIZE: {},
    Kind.FLAG: {"action": argparse.BooleanOptionalAction, "default": None},
}


def declare(mirrors: Parser) -> None:
    """Declare the commands."""
    command = mirrors.add_verb(
        "add",
        add,
        "Mirror another registry",
        "moorage mirror add docker.io",
        "moorage mirror add team --upstream https://registry.example.org --prefix mirrors/team",
    )
    command.explain(
        "Its images appear below the prefix, and are fetched when they are pulled. Names that need "
        "no other options: " + ", ".join(PRESETS) + "."
    )
    command.add_argument("name", metavar="NAME", help="name of the mirror")
    command.add_argument(
        "--prefix", metavar="PREFIX", help="repositories of the mirror (default: NAME)"
    )
    command.add_argument(
        "--adopt",
        action="store_true",
        help="make repositories that exist below the prefix part of the mirror",
    )
    change = mirrors.add_verb(
        "set",
        set_options,
        "Change options of a mirror",
        "moorage mirror set docker.io --tag-ttl 1h",
    )
    change.explain("Options that are not given stay. An empty text ('') removes an option.")
    change.add_argument("name", metavar="NAME", help="name of the mirror")
    for each in (command, change):
        each.add_argument("--upstream", metavar="URL", help="URL of the other registry")
        each.add_argument(
            "--password-stdin",
            action="store_true",
            help="read the password for the upstream from standard input",
        )
        for name, field in FIELDS.items():
            summary = field.description.rstrip(".")
            given: dict[str, Any] = {"metavar": field.metavar} if field.metavar else {}
            given |= _ARGUMENTS[field.kind]
            each.add_argument(
                field.option,
                dest=name,
                help=summary[0].lower() + summary[1:],
                **given,
            )
        each.add_remote(stdin=False)
    command = mirrors.add_verb(
        "default",
        set_default,
        "Choose the mirror of requests that name none",
        "moorage mirror default docker.io --without-ns",
        url=True,
    )
    command.explain(
        "The Docker engine names no registry when it uses a registry mirror. Repositories of this "
        "registry keep their names. Without NAME, the command shows the choice."
    )
    command.add_argument(
        "name", metavar="NAME", nargs="?", help="name of the mirror, or `refuse` for none"
    )
    command.add_argument(
        "--without-ns",
        action="store_true",
        help="refuse requests for other registries (`ns`) that have no mirror",
    )
    mirrors.add_verb("list", list_all, "List mirrors", "moorage mirror list", url=True)
    for verb, work, summary in (
        ("show", show, "Show a mirror and its options"),
        ("test", test, "Check that the upstream of a mirror answers"),
        ("remove", remove, "Remove a mirror, and keep the images that it has fetched"),
    ):
        example = f"moorage mirror {verb} docker.io"
        examples = [example, "moorage mirror show --format k3s"] if work is show else [example]
        command = mirrors.add_verb(verb, work, summary, *examples, url=True)
        nargs = "?" if work is show else None
        command.add_argument("name", metavar="NAME", nargs=nargs, help="name of the mirror")
        if work is show:
            mirror_clients.declare(command)
    confirmation.add_option(command)
    mirror_eviction.declare(mirrors)
    mirror_sync.declare(mirrors)
    mirror_refresh.declare(mirrors)


def add(args: argparse.Namespace) -> int:
    from registry.operations.mirrors.mirrors import create_mirror

    preset = PRESETS.get(args.name)
    given = _list_given(args)
    url = args.upstream
    if preset is not None and url is None:
        url = preset.url
        given = {"hosts": list(preset.hosts), **given}
    if url is None:
        raise InputInvalidError(
            f"{args.name} is not the name of a well-known registry; give the URL with --upstream"
        )
    values = {"url": url, "prefix": args.prefix or args.name, "adopt": args.adopt, **given}
    password = passwords.read_line() if args.password_stdin else None
    mirror = client.run(
        args,
        lambda operations: operations.send(
            create_mirror, name=args.name, password=password, **values
        ),
        create=True,
    )
    said = f"Images of {mirror.url} can now be pulled from {mirror.prefix}/…"
    output.show(mirror, said, as_json=args.json)
    return 0


def _list_given(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that were given. A list of one empty text is an empty list."""
    given = {name: getattr(args, name) for name in FIELDS}
    return {
        name: [text for text in value if text] if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }


def set_options(args: argparse.Namespace) -> int:
    from registry.operations.mirrors.mirrors import get_mirror, set_mirror

    password = passwords.read_line() if args.password_stdin else None

    async def work(operations: client.OperationClient) -> MirrorInfo:
        before = await operations.send(get_mirror, name=args.name)
        return await operations.send(
            set_mirror,
            name=args.name,
            url=args.upstream or before.url,
            password=password,
            **before.values() | _list_given(args),
        )

    mirror = client.run(args, work)
    output.show(mirror, f"Changed the mirror {mirror.name}.", as_json=args.json)
    return 0


def set_default(args: argparse.Namespace) -> int:
    from registry.operations.mirrors.mirrors import get_default_mirror, set_default_mirror
    from registry.services.mirrors.mirrors import REFUSE

    if args.name is None:
        found = client.call(args, get_default_mirror)
    else:
        name = None if args.name == REFUSE else args.name
        found = client.call(args, set_default_mirror, name=name, unknown_ns=not args.without_ns)
    if found.name is None:
        said = "Requests that name no mirror are refused."
    elif found.unknown_ns:
        said = (
            f"Names without a registry, and images of registries without a mirror, are pulled from "
            f"{found.name}."
        )
    else:
        said = f"Names without a registry are pulled from {found.name}."
    output.show(found, said, as_json=args.json)
    return 0


def list_all(args: argparse.Namespace) -> int:
    from registry.operations.mirrors.mirrors import list_mirrors

    found = client.list_all(args, list_mirrors)
    if args.json:
        output.write_json({"mirrors": found})
    else:
        rows = [(each.name, f"{each.prefix}/", each.url, " ".join(each.hosts)) for each in found]
        output.write_table(("NAME", "PREFIX", "UPSTREAM", "HOSTS"), rows)
    return 0


def show(args: argparse.Namespace) -> int:
    from registry.operations.mirrors.eviction import get_mirror_usage
    from registry.operations.mirrors.held import list_held_digests
    from registry.operations.mirrors.mirrors import get_mirror
    from registry.operations.mirrors.status import get_mirror_status
    from registry.operations.mirrors.syncs import list_schedules

    if args.format:
        return mirror_clients.show_files(args)
    if args.name is None:
        raise InputInvalidError("give the name of a mirror, or --format for all mirrors")

    async def work(
        operations: client.OperationClient,
    ) -> tuple[MirrorInfo, MirrorUsage, MirrorStatus, list[HeldDigest], list[ScheduleInfo]]:
        mirror = await operations.send(get_mirror, name=args.name)
        usage = await operations.send(get_mirror_usage, name=args.name)
        status = await operations.send(get_mirror_status, name=args.name)
        held = await operations.send(list_held_digests, name=args.name)
        found = await operations.send(list_schedules, name=args.name)
        return mirror, usage, status, held.items, found.items

    mirror, usage, status, held, schedules = client.run(args, work)
    if args.json:
        more = {"usage": usage, "status": status, "held": held, "schedules": schedules}
        output.write_json({**output.to_json(mirror), **more})
        return 0
    rows = [
        (name.replace("_", "-"), " ".join(value) if isinstance(value, tuple) else value)
        for name, value in output.to_json(mirror).items()
        if value not in ("", (), None)
    ]
    rows += mirror_eviction.list_usage(usage, mirror.max_size)
    rows += mirror_refresh.list_held(held)
    rows += mirror_status.list_status(status, is_remote=bool(args.url))
    output.write_table(("OPTION", "VALUE"), rows)
    mirror_sync.write_schedules(schedules)
    return 0


def test(args: argparse.Namespace) -> int:
    from registry.operations.mirrors.mirrors import test_mirror

    found = client.call(args, test_mirror, name=args.name)
    said = f"The upstream of {found.name} answers." if found.works else f"{found.problem}"
    output.show(found, said, as_json=args.json)
    return 0 if found.works else 1


def remove(args: argparse.Namespace) -> int:
    from registry.operations.mirrors.mirrors import delete_mirror

    client.call(args, delete_mirror, name=args.name)
    said = f"Removed the mirror {args.name}. What it has fetched stays."
    output.show({"removed": args.name}, said, as_json=args.json)
    return 0
