"""Other registries: Debian's docker-registry, and any that a command template starts."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import bcrypt

from benchmarks.registries.moorage import PASSWORD, USER
from benchmarks.registries.registry import Layout, Place, Registry

TEMPLATES = Path(__file__).resolve().parent.parent / "peers"
DEBIAN = "docker-registry"
HTPASSWD_COST = 5
"""Rounds of bcrypt that `htpasswd -B` uses."""
KNOWN = {
    "zot": f"{{program}} serve {{config:{TEMPLATES}/zot.json}}",
    "olareg": "{program} serve --addr 127.0.0.1 --port {port} --dir {data} --api-delete",
    "distribution3": f"{{program}} serve {{config:{TEMPLATES}/distribution.yml}}",
}
"""Command templates of the programs that `--peers` finds in a folder."""
VERSION = {"olareg": "version"}
"""Arguments that print the version, other than `--version`."""


class PeerError(Exception):
    """A peer that cannot be run as requested."""


def find_debian() -> Registry:
    """Return Debian's docker-registry, which is Distribution 2.8."""
    if shutil.which(DEBIAN) is None:
        raise PeerError(f"{DEBIAN} is not installed: install Debian's package, or use --no-debian")
    template = f"{DEBIAN} serve {{config:{TEMPLATES}/distribution.yml}}"
    registry = parse_peer(f"{DEBIAN}={template}")
    return Registry(DEBIAN, registry.command, Layout.DISTRIBUTION, version=(DEBIAN, "--version"))


def parse_peer(text: str) -> Registry:
    """Return the registry of `NAME=COMMAND`.

    `{port}` and `{data}` in the command are the port and the data directory. `{config:FILE}` is a
    copy of FILE in which both are replaced.
    """
    name, equals, template = text.partition("=")
    if not (equals and name and template):
        raise PeerError(f"--peer {text!r}: write NAME='COMMAND … {{port}} … {{data}}'")
    words = shlex.split(template)
    if "{port}" not in template and "{config:" not in template:
        raise PeerError(f"--peer {name}: the command has neither {{port}} nor {{config:FILE}}")

    def command(place: Place) -> list[str]:
        return [place.fill(_write_config(place, word)) for word in words]

    return Registry(name, command, guess_layout(name), version=(words[0], "--version"))


def _write_config(place: Place, word: str) -> str:
    """Replace `{config:FILE}` by the path of the filled copy."""
    found = re.search(r"\{config:([^}]+)\}", word)
    if found is None:
        return word
    source = Path(found[1])
    target = place.folder / source.name
    target.write_text(place.fill(source.read_text()))
    return word.replace(found[0], str(target))


def guess_layout(name: str) -> Layout:
    """Return the format of the data of a peer, by its name."""
    if name.startswith(("zot", "olareg")):
        return Layout.OCI
    if name.startswith(("distribution", DEBIAN)):
        return Layout.DISTRIBUTION
    return Layout.UNKNOWN


def list_known(folder: Path) -> list[Registry]:
    """Return the known registries whose programs are in the folder."""
    found = []
    for name, template in KNOWN.items():
        program = folder.resolve() / name
        if program.exists():
            peer = parse_peer(f"{name}={template.replace('{program}', str(program))}")
            found.append(replace(peer, version=(str(program), VERSION.get(name, "--version"))))
    if not found:
        raise PeerError(f"--peers {folder}: the folder has none of {', '.join(KNOWN)}")
    return found


def with_htpasswd(registry: Registry) -> Registry:
    """Return Distribution that requires Basic credentials of the user of the benchmark."""

    def command(place: Place) -> list[str]:
        words = registry.command(place)
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(HTPASSWD_COST, b"2a")).decode()
        secrets = place.folder / "htpasswd"
        secrets.write_text(f"{USER}:{hashed}\n")
        config = Path(words[-1])
        section = f"auth:\n  htpasswd:\n    realm: benchmark\n    path: {secrets}\n"
        config.write_text(config.read_text() + section)
        return words

    return Registry(registry.name, command, registry.layout, version=registry.version)
