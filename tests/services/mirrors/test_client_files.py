"""Files that make clients use mirrors: their text, read again by real parsers."""

import json
import tomllib
from typing import Any

import pytest
import yaml

from registry.cli.commands.content.mirror_clients import FORMATS
from registry.errors import InputInvalidError
from registry.services.mirrors.client_files import Address, ClientFile, ClientMirror, write_files
from registry.services.mirrors.presets import PRESETS

HUB = ClientMirror(
    "docker.io", "docker.io", "https://registry-1.docker.io", PRESETS["docker.io"].hosts
)
TEAM = ClientMirror("team", "mirrors/team", "https://registry.example.net:5000", ())
TLS, PLAIN = Address.parse("https://moorage.example/"), Address.parse("http://10.0.0.7:5000")


def write(client: str, address: Address, *mirrors: ClientMirror) -> list[ClientFile]:
    return write_files(client, address, mirrors, is_all=len(mirrors) > 1)


def read(files: list[ClientFile]) -> dict[str, Any]:
    """Return the content of each file by its path."""
    found: dict[str, Any] = {}
    for each in files:
        if each.path.endswith(".json"):
            found[each.path] = json.loads(each.text)
        elif each.path.endswith(".yaml"):
            documents = list(yaml.safe_load_all(each.text))
            found[each.path] = documents[0] if len(documents) == 1 else documents
        else:
            found[each.path] = tomllib.loads(each.text)
    return found


def test_containerd_has_a_file_for_each_registry() -> None:
    [file] = write("containerd", TLS, HUB)
    assert file.text == (
        'server = "https://registry-1.docker.io"\n'
        "\n"
        '[host."https://moorage.example/v2/docker.io"]\n'
        '  capabilities = ["pull", "resolve"]\n'
        "  override_path = true\n"
    )
    host = {"capabilities": ["pull", "resolve"], "override_path": True}
    assert read(write("containerd", PLAIN, TEAM)) == {
        "/etc/containerd/certs.d/registry.example.net:5000/hosts.toml": {
            "server": "https://registry.example.net:5000",
            "host": {"http://10.0.0.7:5000/v2/mirrors/team": host},
        }
    }


def test_containerd_has_one_file_for_all_registries() -> None:
    assert read(write("containerd", TLS, HUB, TEAM)) == {
        "/etc/containerd/certs.d/_default/hosts.toml": {
            "host": {"https://moorage.example": {"capabilities": ["pull", "resolve"]}}
        }
    }


def test_the_docker_engine_has_mirrors_of_docker_hub_only() -> None:
    path = "/etc/docker/daemon.json"
    assert read(write("dockerd", TLS, HUB)) == {
        path: {"registry-mirrors": ["https://moorage.example"]}
    }
    assert read(write("dockerd", PLAIN, HUB, TEAM)) == {
        path: {
            "registry-mirrors": ["http://10.0.0.7:5000"],
            "insecure-registries": ["10.0.0.7:5000"],
        }
    }
    loopback = Address.parse("http://127.0.0.1:5000")
    assert "insecure-registries" not in write("dockerd", loopback, HUB)[0].text
    with pytest.raises(InputInvalidError, match="only for Docker Hub"):
        write("dockerd", TLS, TEAM)


def test_podman_has_a_mirror_below_each_registry() -> None:
    [file] = write("podman", PLAIN, HUB)
    assert file.path == "/etc/containers/registries.conf.d/50-docker.io.conf"
    assert file.text == (
        "[[registry]]\n"
        'location = "docker.io"\n'
        "\n"
        "[[registry.mirror]]\n"
        'location = "10.0.0.7:5000/docker.io"\n'
        "insecure = true\n"
    )
    assert read(write("podman", TLS, HUB, TEAM)) == {
        "/etc/containers/registries.conf.d/50-moorage.conf": {
            "registry": [
                {"location": "docker.io", "mirror": [{"location": "moorage.example/docker.io"}]},
                {
                    "location": "registry.example.net:5000",
                    "mirror": [{"location": "moorage.example/mirrors/team"}],
                },
            ]
        }
    }


def test_k3s_has_an_endpoint_for_each_registry() -> None:
    [file] = write("k3s", TLS, HUB)
    assert file.text == (
        'mirrors:\n  "docker.io":\n    endpoint:\n      - "https://moorage.example/v2/docker.io"\n'
    )
    assert read(write("k3s", PLAIN, HUB, TEAM)) == {
        "/etc/rancher/k3s/registries.yaml": {
            "mirrors": {
                "docker.io": {"endpoint": ["http://10.0.0.7:5000/v2/docker.io"]},
                "registry.example.net:5000": {"endpoint": ["http://10.0.0.7:5000/v2/mirrors/team"]},
            }
        }
    }


def test_talos_has_a_document_for_each_registry() -> None:
    [file] = write("talos", TLS, HUB)
    assert file.text == (
        "apiVersion: v1alpha1\n"
        "kind: RegistryMirrorConfig\n"
        'name: "docker.io"\n'
        "endpoints:\n"
        '  - url: "https://moorage.example/v2/docker.io"\n'
        "    overridePath: true\n"
    )
    [documents] = read(write("talos", TLS, HUB, TEAM)).values()
    assert [each["name"] for each in documents] == ["docker.io", "registry.example.net:5000"]


def test_buildkit_has_a_mirror_with_a_path() -> None:
    [file] = write("buildkit", TLS, HUB)
    assert file.text == '[registry."docker.io"]\n  mirrors = ["moorage.example/docker.io"]\n'
    assert read(write("buildkit", PLAIN, HUB, TEAM)) == {
        "/etc/buildkit/buildkitd.toml": {
            "registry": {
                "docker.io": {"mirrors": ["10.0.0.7:5000/docker.io"]},
                "registry.example.net:5000": {"mirrors": ["10.0.0.7:5000/mirrors/team"]},
                "10.0.0.7:5000": {"http": True},
            }
        }
    }


@pytest.mark.parametrize("client", FORMATS)
def test_an_address_with_a_path_is_used_or_refused(client: str) -> None:
    address = Address.parse("https://example.org/registry")
    if client in {"containerd", "k3s", "talos"}:
        assert "https://example.org/registry/v2/docker.io" in write(client, address, HUB)[0].text
        return
    with pytest.raises(InputInvalidError, match="address with a path"):
        write(client, address, HUB)


def test_an_address_without_a_scheme_has_tls() -> None:
    assert Address.parse("moorage.example:5000").url == "https://moorage.example:5000"
    with pytest.raises(InputInvalidError, match="is not a URL"):
        Address.parse("https://")
