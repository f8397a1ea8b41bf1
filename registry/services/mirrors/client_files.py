"""Configuration files that make clients use mirrors of this registry.

Sources: containerd docs/hosts.md, Docker's daemon.json, containers-registries.conf(5), k3s "Private
Registry Configuration", Talos RegistryMirrorConfig, BuildKit docs/buildkitd.toml.md.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from registry.errors import InputInvalidError
from registry.services.mirrors.presets import DOCKER_HUB, PRESETS
from registry.units import is_loopback, parse_url

_HUB = frozenset(PRESETS[DOCKER_HUB].hosts)


@dataclass(frozen=True, slots=True)
class ClientFile:
    """A file of a client. `path` is its usual place."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class ClientMirror:
    """A mirror as clients see it. Without `hosts`, clients know its upstream by the host of it."""

    name: str
    prefix: str
    url: str
    hosts: tuple[str, ...]

    @property
    def registries(self) -> list[str]:
        """The registries whose images the mirror has. Docker Hub has one name in all clients."""
        hosts = self.hosts or (urlsplit(self.url).netloc,)
        return list(dict.fromkeys(DOCKER_HUB if host in _HUB else host for host in hosts))


@dataclass(frozen=True, slots=True)
class Address:
    """The address of this registry for clients."""

    url: str

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read a URL, or a host with an optional port. Raises InputInvalidError."""
        url = text if "://" in text else f"https://{text}"
        try:
            return cls(parse_url(url).rstrip("/"))
        except ValueError as error:
            raise InputInvalidError(
                f"address: {text!r:.80} is not a URL such as https://registry.example.org"
            ) from error

    @property
    def host(self) -> str:
        """The host, with the port if there is one."""
        return urlsplit(self.url).netloc

    @property
    def is_plain(self) -> bool:
        """Whether the connection has no TLS."""
        return self.url.startswith("http:")

    @property
    def is_loopback(self) -> bool:
        return is_loopback(urlsplit(self.url).hostname or "")

    def require_no_path(self, client: str) -> None:
        """Raise InputInvalidError if the client cannot use a URL with a path."""
        if urlsplit(self.url).path:
            raise InputInvalidError(
                f"{client} cannot use an address with a path; give one without (--address)"
            )

    def endpoint(self, mirror: ClientMirror) -> str:
        """Return the root of the API for a mirror, for clients that add no `/v2`."""
        return f"{self.url}/v2/{mirror.prefix}"


def _containerd(address: Address, mirrors: Sequence[ClientMirror]) -> list[ClientFile]:
    return [
        ClientFile(
            f"/etc/containerd/certs.d/{registry}/hosts.toml",
            f"server = {_quote(mirror.url)}\n\n"
            f"[host.{_quote(address.endpoint(mirror))}]\n"
            '  capabilities = ["pull", "resolve"]\n'
            "  override_path = true\n",
        )
        for mirror in mirrors
        for registry in mirror.registries
    ]


def _containerd_default(address: Address, _: Sequence[ClientMirror]) -> list[ClientFile]:
    """Return the file for all registries. containerd names the registry in `ns`."""
    text = f'[host.{_quote(address.url)}]\n  capabilities = ["pull", "resolve"]\n'
    return [ClientFile("/etc/containerd/certs.d/_default/hosts.toml", text)]


def _dockerd(address: Address, mirrors: Sequence[ClientMirror]) -> list[ClientFile]:
    address.require_no_path("the Docker engine")
    if not any(DOCKER_HUB in mirror.registries for mirror in mirrors):
        raise InputInvalidError(
            "the Docker engine has registry mirrors only for Docker Hub; pull images of other "
            f"registries by their full name, such as {address.host}/PREFIX/NAME"
        )
    settings: dict[str, list[str]] = {"registry-mirrors": [address.url]}
    if address.is_plain and not address.is_loopback:
        settings["insecure-registries"] = [address.host]
    return [ClientFile("/etc/docker/daemon.json", json.dumps(settings, indent=2) + "\n")]


def _podman(address: Address, mirrors: Sequence[ClientMirror]) -> list[ClientFile]:
    address.require_no_path("podman")
    insecure = "insecure = true\n" if address.is_plain else ""
    text = "\n".join(
        f"[[registry]]\nlocation = {_quote(registry)}\n\n"
        f"[[registry.mirror]]\nlocation = {_quote(f'{address.host}/{mirror.prefix}')}\n{insecure}"
        for mirror in mirrors
        for registry in mirror.registries
    )
    name = f"50-{mirrors[0].name}.conf" if len(mirrors) == 1 else "50-moorage.conf"
    return [ClientFile(f"/etc/containers/registries.conf.d/{name}", text)]


def _k3s(address: Address, mirrors: Sequence[ClientMirror]) -> list[ClientFile]:
    text = "mirrors:\n" + "".join(
        f"  {_quote(registry)}:\n    endpoint:\n      - {_quote(address.endpoint(mirror))}\n"
        for mirror in mirrors
        for registry in mirror.registries
    )
    return [ClientFile("/etc/rancher/k3s/registries.yaml", text)]


def _talos(address: Address, mirrors: Sequence[ClientMirror]) -> list[ClientFile]:
    documents = [
        "apiVersion: v1alpha1\n"
        "kind: RegistryMirrorConfig\n"
        f"name: {_quote(registry)}\n"
        "endpoints:\n"
        f"  - url: {_quote(address.endpoint(mirror))}\n"
        "    overridePath: true\n"
        for mirror in mirrors
        for registry in mirror.registries
    ]
    return [ClientFile("mirrors.yaml", "---\n".join(documents))]


def _buildkit(address: Address, mirrors: Sequence[ClientMirror]) -> list[ClientFile]:
    address.require_no_path("BuildKit")
    tables = [
        f"[registry.{_quote(registry)}]\n"
        f"  mirrors = [{_quote(f'{address.host}/{mirror.prefix}')}]\n"
        for mirror in mirrors
        for registry in mirror.registries
    ]
    if address.is_plain:
        tables.append(f"[registry.{_quote(address.host)}]\n  http = true\n")
    return [ClientFile("/etc/buildkit/buildkitd.toml", "\n".join(tables))]


def _quote(text: str) -> str:
    """Return a string of TOML and YAML."""
    return json.dumps(text)


_WRITERS: dict[str, Callable[[Address, Sequence[ClientMirror]], list[ClientFile]]] = {
    "containerd": _containerd,
    "dockerd": _dockerd,
    "podman": _podman,
    "k3s": _k3s,
    "talos": _talos,
    "buildkit": _buildkit,
}


def write_files(
    client: str, address: Address, mirrors: Sequence[ClientMirror], *, is_all: bool
) -> list[ClientFile]:
    """Return the files of a client for some mirrors, or for all of them.

    Raises InputInvalidError if the client cannot use them.
    """
    if client == "containerd" and is_all:
        return _containerd_default(address, mirrors)
    return _WRITERS[client](address, mirrors)
