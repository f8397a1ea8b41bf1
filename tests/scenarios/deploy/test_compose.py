"""deploy/compose: the files are valid for Compose and consistent with Moorage and each other."""

import json
import re
import shutil
import subprocess
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from registry.config import load
from registry.http.settings import HttpSettings
from tests.scenarios.deploy.naming import DEPLOY

COMPOSE = DEPLOY / "compose"
SHAPES = ["single", "replicas"]
_WITH_DEFAULT = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")


def read(shape: str) -> dict[str, Any]:
    """Return the file as Compose reads it when no variables are set."""
    text = (COMPOSE / shape / "compose.yaml").read_text()
    document: dict[str, Any] = yaml.safe_load(_WITH_DEFAULT.sub(r"\g<default>", text))
    # Extensions only hold anchors, which the YAML parser has already resolved.
    return {key: value for key, value in document.items() if not key.startswith("x-")}


def list_own(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the services that run Moorage."""
    return {
        name: service
        for name, service in document["services"].items()
        if service["image"].startswith("moorage:")
    }


def list_servers(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the Moorage services that run the image's default command, which is a server."""
    return {
        name: each for name, each in list_own(document).items() if each.get("entrypoint") is None
    }


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.mark.parametrize("shape", SHAPES)
def test_compose_takes_the_file(shape: str) -> None:
    PyCompose.from_json(json.dumps(read(shape))).validate()


def test_a_volume_that_is_not_declared_is_found() -> None:
    document = read("single")
    del document["volumes"]
    with pytest.raises(ValueError, match="data"):
        PyCompose.from_json(json.dumps(document)).validate()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_settings_are_accepted(shape: str, tmp_path: Path) -> None:
    services = list_own(read(shape))
    assert len(services) > 1
    for service in services.values():
        environ = {**service["environment"]}
        if "MOORAGE_CONFIG" in environ:
            environ["MOORAGE_CONFIG"] = str(prepare(tmp_path) / "secrets" / "moorage.toml")
        settings = load(config=None, data=tmp_path, overrides={}, environ=environ)
        assert settings.auth.mode == "token"


def prepare(folder: Path) -> Path:
    """Run ./prepare in a copy and return the folder with its output."""
    made = folder / "replicas"
    if not made.exists():
        made.mkdir()
        shutil.copy2(COMPOSE / "replicas" / "prepare", made)
    subprocess.run([made / "prepare"], check=True, capture_output=True)
    return made


def test_what_is_prepared_fits_together_and_is_made_once(tmp_path: Path) -> None:
    made = prepare(tmp_path)
    settings = tomllib.loads((made / "secrets" / "moorage.toml").read_text())
    password = (made / "secrets" / "postgres-password").read_text()
    assert (
        settings["database"]["url"] == f"postgresql+psycopg://moorage:{password}@postgres/moorage"
    )
    [identity] = json.loads((made / "secrets" / "s3.json").read_text())["identities"]
    assert identity["credentials"] == [
        {
            "accessKey": settings["storage"]["access_key"],
            "secretKey": settings["storage"]["secret_key"],
        }
    ]
    assert (made / "secrets").stat().st_mode & 0o777 == 0o700
    assert (made / "tls" / "tls.key").stat().st_mode & 0o077 == 0
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    prepare(tmp_path)
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
    declared = {path["file"] for path in read("replicas")["secrets"].values()}
    assert declared == {f"./secrets/{path.name}" for path in (made / "secrets").iterdir()}


@pytest.mark.parametrize("shape", SHAPES)
def test_whatever_stays_up_is_watched_bounded_and_started_again(shape: str) -> None:
    services = read(shape)["services"]
    staying = {
        name: each
        for name, each in services.items()
        if "entrypoint" not in each or each.get("restart") == "unless-stopped"
    }
    assert staying
    for name, each in staying.items():
        assert each["restart"] == "unless-stopped", name
        checked = each["healthcheck"].get("test", [""])[0] == "CMD"
        # `docker compose up --wait` fails if a health check is disabled.
        assert checked, name
        assert {"cpus", "memory"} <= each["deploy"]["resources"]["limits"].keys(), name


@pytest.mark.parametrize("shape", SHAPES)
def test_servers_are_given_more_time_than_they_drain(shape: str) -> None:
    for name, service in list_servers(read(shape)).items():
        assert seconds(service["stop_grace_period"]) > HttpSettings().drain_timeout + 20, name


@pytest.mark.parametrize("shape", SHAPES)
def test_moorage_has_no_more_rights_than_it_needs(shape: str) -> None:
    for name, service in list_own(read(shape)).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        folders = [volume.split(":")[1] for volume in service.get("volumes", [])]
        assert "/data" in folders + [each.split(":")[0] for each in service["tmpfs"]], name


def test_nothing_of_one_machine_is_published_to_others() -> None:
    [port] = list_servers(read("single"))["moorage"]["ports"]
    assert port == "127.0.0.1:5000:5000"


def test_the_jobs_run_in_one_place() -> None:
    services = list_own(read("replicas"))
    assert services["worker"]["entrypoint"] == ["moorage", "worker"]
    assert {each["environment"]["MOORAGE_JOBS__IN_SERVE"] for each in services.values()} == {
        "false"
    }
    assert "MOORAGE_JOBS__IN_SERVE" not in list_own(read("single"))["moorage"]["environment"]


def test_nginx_knows_the_replicas_and_they_trust_it() -> None:
    document = read("replicas")
    servers = list_servers(document)
    addresses = {each["networks"]["moorage"]["ipv4_address"] for each in servers.values()}
    named = re.findall(
        r"server ([\d.]+):5000 ", (COMPOSE / "replicas" / "replicas.conf").read_text()
    )
    assert len(named) == 2
    assert set(named) == addresses
    nginx = document["services"]["nginx"]["networks"]["moorage"]["ipv4_address"]
    for service in servers.values():
        assert service["environment"]["MOORAGE_HTTP__TRUSTED_PROXIES"] == nginx
    [pool] = document["networks"]["moorage"]["ipam"]["config"]
    for address in (nginx, *addresses):
        assert ip_address(address) in ip_network(pool["subnet"])
        # Otherwise another container may already have the address.
        assert ip_address(address) not in ip_network(pool["ip_range"])


def test_the_files_that_nginx_gets_are_there() -> None:
    folder = COMPOSE / "replicas"
    made_by_prepare = {"./tls"}
    for volume in read("replicas")["services"]["nginx"]["volumes"]:
        source = volume.split(":")[0]
        assert source in made_by_prepare or (folder / source).is_file(), source
