"""`moorage mirror` on a data directory, and through the API of a server."""

import json

import pytest

from registry.services.mirrors.presets import PRESETS
from tests.cli.moorage import Moorage

pytestmark = pytest.mark.timeout(120)

UPSTREAM = ["--upstream", "https://registry.example.org"]


def test_a_well_known_registry_needs_only_its_name(moorage: Moorage) -> None:
    said = moorage.run("mirror", "add", "docker.io").stdout
    assert said == "Images of https://registry-1.docker.io can now be pulled from docker.io/…\n"
    shown = moorage.json("mirror", "show", "docker.io")
    assert shown["hosts"] == list(PRESETS["docker.io"].hosts)
    assert (shown["prefix"], shown["tag_ttl"], shown["has_password"]) == ("docker.io", "5m", False)


def test_options_are_set_one_by_one_and_removed(moorage: Moorage) -> None:
    moorage.run("mirror", "add", "team", *UPSTREAM, "--prefix", "a/team", "--host", "h.example")
    moorage.run(
        "mirror", "set", "team", "--tag-ttl", "120s", "--deny", "x/**", "y", "--allow-private"
    )
    shown = moorage.json("mirror", "show", "team")
    assert (shown["tag_ttl"], shown["deny"]) == ("2m", ["x/**", "y"])
    assert (shown["hosts"], shown["allow_private"]) == (["h.example"], True)
    moorage.run("mirror", "set", "team", "--deny", "", "--no-allow-private")
    shown = moorage.json("mirror", "show", "team")
    assert (shown["tag_ttl"], shown["deny"], shown["allow_private"]) == ("2m", [], False)
    assert "a/team/" in moorage.run("mirror", "list").stdout
    assert "tag-ttl" in moorage.run("mirror", "show", "team").stdout


def test_a_password_is_kept_and_never_shown(moorage: Moorage) -> None:
    secret = "a secret of the upstream"  # noqa: S105 - of a test
    options = ["--username", "bob", "--password-stdin"]
    added = moorage.run("mirror", "add", "team", *UPSTREAM, *options, typed=secret + "\n")
    changed = moorage.run("mirror", "set", "team", "--tag-ttl", "1h")
    shown = moorage.run("mirror", "show", "team", "--json")
    listed = moorage.run("mirror", "list", "--json")
    events = moorage.run("audit", "list", "--json")
    assert '"has_password": true' in shown.stdout
    for each in (added, changed, shown, listed, events):
        assert secret not in each.stdout + each.stderr


def test_invalid_options_are_refused(moorage: Moorage) -> None:
    moorage.run("mirror", "add", "docker.io")
    for options, words in (
        ([], "give the URL with --upstream"),
        (["--upstream", "registry.example.org"], "is not a URL"),
        ([*UPSTREAM, "--prefix", "docker.io/x"], "overlaps with docker.io of the mirror docker.io"),
        ([*UPSTREAM, "--host", "docker.io"], "belongs to the mirror docker.io"),
        ([*UPSTREAM, "--host", "https://a"], "is not a host"),
        ([*UPSTREAM, "--tag-ttl", "soon"], "is not a duration"),
        ([*UPSTREAM, "--allow", "A B"], "invalid pattern"),
        ([*UPSTREAM, "--credential-helper", "../bad"], "is not the name of a helper"),
        ([*UPSTREAM, "--password-file", "secret"], "`password_file` requires `username`"),
        ([*UPSTREAM, "--http-proxy", "proxy:1"], "is not a URL"),
        ([*UPSTREAM, "--max-connections", "0"], "max_connections"),
        ([*UPSTREAM, "--rate", "fast"], "is not a size"),
        ([*UPSTREAM, "--platform", "amd64"], "is not a platform"),
    ):
        assert words in moorage.fails("mirror", "add", "team", *options)
    assert len(moorage.json("mirror", "list")["mirrors"]) == 1


def test_a_mirror_does_not_take_over_repositories_by_accident(moorage: Moorage) -> None:
    moorage.run("mirror", "add", "team", *UPSTREAM)
    assert "the mirror team exists" in moorage.fails("mirror", "add", "team", *UPSTREAM)
    moorage.run("mirror", "remove", "team")
    assert moorage.json("mirror", "list") == {"mirrors": []}
    assert "no mirror team" in moorage.fails("mirror", "remove", "team")


def test_test_says_why_the_upstream_does_not_answer(moorage: Moorage) -> None:
    moorage.run("mirror", "add", "near", "--upstream", "http://127.0.0.1:1")
    refused = moorage.run("mirror", "test", "near", expect=1).stdout
    assert "has an address that must not be called" in refused
    moorage.run("mirror", "set", "near", "--allow-private")
    assert (
        "cannot reach http://127.0.0.1:1" in moorage.run("mirror", "test", "near", expect=1).stdout
    )


def test_show_prints_the_configuration_of_clients(moorage: Moorage) -> None:
    moorage.run("mirror", "add", "docker.io")
    moorage.run("mirror", "add", "quay.io")
    if "--url" in moorage.where:
        assert "/v2/quay.io" in moorage.run("mirror", "show", "--format", "k3s").stdout
    else:
        said = moorage.fails("mirror", "show", "--format", "k3s")
        assert "the address of this registry for clients is not known" in said
    address = ["--address", "https://moorage.example"]
    one = moorage.run("mirror", "show", "docker.io", "--format", "k3s", *address).stdout
    assert one.startswith("# /etc/rancher/k3s/registries.yaml\nmirrors:\n")
    assert "quay.io" not in one
    both = moorage.json("mirror", "show", "--format", "podman", *address)
    assert [each["path"].rpartition("/")[2] for each in both["files"]] == ["50-moorage.conf"]
    assert "quay.io" in both["files"][0]["text"]
    shown = moorage.run("mirror", "show", "docker.io", "--format", "dockerd", *address)
    assert json.loads(shown.stdout) == {"registry-mirrors": ["https://moorage.example"]}
    assert "moorage mirror default docker.io" in shown.stderr
    moorage.run("mirror", "default", "docker.io", "--without-ns")
    shown = moorage.run("mirror", "show", "--format", "dockerd", *address)
    assert shown.stderr == ""
    assert "no mirror other" in moorage.fails(
        "mirror", "show", "other", "--format", "k3s", *address
    )
    assert "give the name" in moorage.fails("mirror", "show")


def test_the_default_mirror_is_chosen_and_refused(moorage: Moorage) -> None:
    refused = "Requests that name no mirror are refused.\n"
    moorage.run("mirror", "add", "docker.io")
    moorage.run("mirror", "add", "quay.io")
    assert moorage.run("mirror", "default").stdout == refused
    moorage.run("mirror", "default", "docker.io")
    moorage.run("mirror", "default", "quay.io", "--without-ns")
    assert moorage.json("mirror", "default") == {"name": "quay.io", "unknown_ns": False}
    assert "default_for" not in moorage.run("mirror", "show", "docker.io").stdout
    assert "no mirror other" in moorage.fails("mirror", "default", "other")
    assert moorage.run("mirror", "default", "refuse").stdout == refused
    assert "use another name" in moorage.fails("mirror", "add", "refuse", *UPSTREAM)
    moorage.run("mirror", "default", "quay.io")
    moorage.run("mirror", "remove", "quay.io")
    assert moorage.run("mirror", "default").stdout == refused


def test_show_has_the_state_of_a_running_server(moorage: Moorage) -> None:
    moorage.run("mirror", "add", "near", "--upstream", "http://127.0.0.1:1", "--allow-private")
    shown = moorage.run("mirror", "show", "near").stdout
    if "--url" not in moorage.where:
        assert "known to a running server" in shown
        return
    assert "no requests yet" in shown
    assert "not asked yet" in shown
    moorage.run("mirror", "test", "near", expect=1)
    shown = moorage.run("mirror", "show", "near").stdout
    assert "cannot reach http://127.0.0.1:1" in shown
    status = moorage.json("mirror", "show", "near")["status"]
    assert (status["hits"], status["misses"], status["is_up"]) == (0, 0, True)
    assert status["last_error_at"].endswith("Z")
    assert status["quota_remaining"] is None
