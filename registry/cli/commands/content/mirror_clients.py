"""`moorage mirror show --format`: files that make clients use mirrors."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from registry.cli.kit import client, output
from registry.cli.kit.parsing import Parser
from registry.errors import InputInvalidError

if TYPE_CHECKING:
    from registry.operations.mirrors.mirrors import MirrorInfo
    from registry.services.mirrors.client_files import Address, ClientFile

FORMATS = ("containerd", "dockerd", "podman", "k3s", "talos", "buildkit")
"""The clients, of which the help must not import the module that writes their files."""


def declare(command: Parser) -> None:
    """Declare the options of `show`."""
    command.add_argument(
        "--format", choices=FORMATS, help="print the configuration of this client instead"
    )
    command.add_argument(
        "--address",
        metavar="URL",
        help="address of this registry for clients (default: http.external_url, or --url)",
    )


def show_files(args: argparse.Namespace) -> int:
    """Print the files of a client for one mirror, or for all of them."""
    from registry.operations.mirrors.mirrors import list_mirrors
    from registry.services.mirrors.client_files import ClientMirror, write_files

    address = _find_address(args)
    found = client.list_all(args, list_mirrors)
    chosen = [each for each in found if args.name in {None, each.name}]
    if not chosen:
        raise InputInvalidError(f"no mirror {args.name}" if args.name else "there are no mirrors")
    files = write_files(
        args.format,
        address,
        [ClientMirror(each.name, each.prefix, each.url, each.hosts) for each in chosen],
        is_all=args.name is None,
    )
    if args.format == "dockerd":
        _warn_of_default(chosen)
    if args.json:
        output.write_json({"files": [{"path": each.path, "text": each.text} for each in files]})
    else:
        output.write_script("\n".join(map(_write, files)).rstrip("\n"))
    return 0


def _find_address(args: argparse.Namespace) -> Address:
    from registry.cli.kit.options import load_settings
    from registry.services.mirrors.client_files import Address

    given = args.address or args.url or load_settings(args).http.external_url
    if not given:
        raise InputInvalidError(
            "the address of this registry for clients is not known; give --address, or set "
            "http.external_url"
        )
    return Address.parse(given)


def _warn_of_default(mirrors: list[MirrorInfo]) -> None:
    """Warn if the requests of the Docker engine would be refused."""
    if not any(each.default_for for each in mirrors):
        output.write_error(
            "the Docker engine needs a default mirror: run moorage mirror default "
            f"{mirrors[0].name} --without-ns"
        )


def _write(file: ClientFile) -> str:
    # JSON has no comments.
    return file.text if file.path.endswith(".json") else f"# {file.path}\n{file.text}"
