"""deploy/kubernetes: each document is valid for Kubernetes, and all are consistent."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from registry.http.settings import HttpSettings
from tests.scenarios.deploy.naming import DEPLOY, load_environment
from tests.support.servers.server import ROOT

FOLDER = DEPLOY / "kubernetes"
VERSIONS = ["1.30", "1.37"]
"""The oldest and the newest tested version."""


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return document


KUSTOMIZATION = read("kustomization.yaml")
DOCUMENTS = {name: read(name) for name in KUSTOMIZATION["resources"]}
DEPLOYMENTS = [each for each in DOCUMENTS.values() if each["kind"] == "Deployment"]


def by_kind(kind: str) -> dict[str, Any]:
    [found] = [each for each in DOCUMENTS.values() if each["kind"] == kind]
    return found


def server() -> dict[str, Any]:
    [found] = [each for each in DEPLOYMENTS if each["metadata"]["name"] == "moorage"]
    return found


def labels_of(deployment: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


def list_containers(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    pod = deployment["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def read_environment(name: str) -> dict[str, str]:
    lines = (FOLDER / name).read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: value for key, _, value in pairs}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_kubernetes_takes_the_document(name: str, version: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[name], version, strict=True)


def test_a_field_that_is_none_is_found() -> None:
    wrong = read("service.yaml")
    wrong["spec"]["ports"][0]["targetPorts"] = "http"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_every_file_is_named_by_the_kustomization() -> None:
    generated = ("configMapGenerator", "secretGenerator")
    files = {env for kind in generated for each in KUSTOMIZATION[kind] for env in each["envs"]}
    assert files == {"settings.env", "secret.env"}
    there = {path.name for path in FOLDER.iterdir()} - {".gitignore", "secret.env"}
    assert there == {
        *DOCUMENTS,
        "kustomization.yaml",
        "settings.env",
        "secret.env.example",
    }
    assert (FOLDER / ".gitignore").read_text() == "/secret.env\n"


def test_the_settings_are_accepted(tmp_path: Path) -> None:
    secrets = read_environment("secret.env.example")
    assert set(secrets.values()) == {""}
    given = {
        "MOORAGE_DATABASE__URL": "postgresql+psycopg://moorage:x@postgres/moorage",
        "MOORAGE_AUTH__SECRET": "x" * 64,
        "MOORAGE_STORAGE__ACCESS_KEY": "x",
        "MOORAGE_STORAGE__SECRET_KEY": "x",
        "MOORAGE_AUTH__ADMIN_PASSWORD": "x" * 16,
    }
    assert secrets.keys() == given.keys()
    settings = load_environment(read_environment("settings.env") | given, tmp_path)
    assert settings.storage.driver == "s3"
    assert settings.auth.mode == "token"


def test_selectors_find_their_pods() -> None:
    for deployment in DEPLOYMENTS:
        assert deployment["spec"]["selector"]["matchLabels"] == labels_of(deployment)
        others = [each for each in DEPLOYMENTS if each is not deployment]
        assert labels_of(deployment) not in map(labels_of, others)
    for selector in (
        by_kind("Service")["spec"]["selector"],
        by_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        found = [d for d in DEPLOYMENTS if selector.items() <= labels_of(d).items()]
        assert found == [server()]


def test_ports_and_names_lead_from_the_ingress_to_the_container() -> None:
    ingress, service = by_kind("Ingress")["spec"], by_kind("Service")
    [rule] = ingress["rules"]
    paths = rule["http"]["paths"]
    [port] = service["spec"]["ports"]
    [container] = server()["spec"]["template"]["spec"]["containers"]
    [listening] = container["ports"]
    for path in paths:
        assert path["backend"]["service"] == {
            "name": service["metadata"]["name"],
            "port": {"name": port["name"]},
        }
    assert port["targetPort"] == listening["name"]
    assert container["args"][:2] == ["--listen", f":{listening['containerPort']}"]
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert container[probe]["httpGet"]["port"] == listening["name"]
    assert ingress["tls"][0]["hosts"] == [rule["host"]]
    external = read_environment("settings.env")["MOORAGE_HTTP__EXTERNAL_URL"]
    assert external == f"https://{rule['host']}"


def is_led(path: str, rule: dict[str, str]) -> bool:
    """Return whether an ingress rule matches a path, by the rules of its path type."""
    below = path.startswith(f"{rule['path'].removesuffix('/')}/")
    return path == rule["path"] or (rule["pathType"] == "Prefix" and below)


@pytest.mark.parametrize(
    ("path", "led"),
    [
        *((path, True) for path in ("/", "/v2", "/v2/", "/v2/team/app/tags/list", "/token")),
        *((path, True) for path in ("/api/v1/users", "/.well-known/jwks.json", "/healthz")),
        *((path, False) for path in ("/metrics", "/metrics/", "/readyz", "/v2x", "/other")),
    ],
)
def test_the_ingress_leads_clients_to_the_registry_and_not_to_its_figures(
    path: str, led: bool
) -> None:
    [rule] = by_kind("Ingress")["spec"]["rules"]
    assert any(is_led(path, each) for each in rule["http"]["paths"]) is led


def test_settings_and_secrets_that_are_named_are_generated() -> None:
    generated = {
        "configMapRef": {each["name"] for each in KUSTOMIZATION["configMapGenerator"]},
        "secretRef": {each["name"] for each in KUSTOMIZATION["secretGenerator"]},
    }
    for deployment in DEPLOYMENTS:
        for container in list_containers(deployment):
            named = [next(iter(each.items())) for each in container["envFrom"]]
            assert {kind for kind, _ in named} == generated.keys()
            for kind, reference in named:
                assert reference["name"] in generated[kind]


def test_the_image_is_the_one_that_the_kustomization_replaces() -> None:
    [image] = KUSTOMIZATION["images"]
    for deployment in DEPLOYMENTS:
        assert {each["image"] for each in list_containers(deployment)} == {image["name"]}


def test_a_probe_asks_what_it_is_for() -> None:
    """Restarting a replica because the database is down would make the outage worse."""
    [container] = server()["spec"]["template"]["spec"]["containers"]
    asked = {name: container[name]["httpGet"]["path"] for name in container if "Probe" in name}
    assert asked == {
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
        "startupProbe": "/healthz",
    }


def test_pods_are_given_more_time_than_they_drain() -> None:
    pod = server()["spec"]["template"]["spec"]
    [container] = pod["containers"]
    slept = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > slept + HttpSettings().drain_timeout + 20


def test_pods_have_no_more_rights_than_they_need() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for deployment in DEPLOYMENTS:
        pod = deployment["spec"]["template"]["spec"]
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile
        assert pod["automountServiceAccountToken"] is False
        volumes = {each["name"] for each in pod["volumes"]}
        for container in list_containers(deployment):
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"] is True
            assert confined["allowPrivilegeEscalation"] is False
            assert confined["capabilities"] == {"drop": ["ALL"]}
            mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
            assert set(mounted) <= volumes
            assert set(mounted.values()) == {"/data", "/tmp"}  # noqa: S108
            assert "memory" in container["resources"]["limits"]


def test_the_jobs_run_in_one_place() -> None:
    [worker] = [each for each in DEPLOYMENTS if each["metadata"]["name"] == "worker"]
    assert [each["command"] for each in list_containers(worker)] == [["moorage", "worker"]]
    assert worker["spec"]["replicas"] == 1
    assert read_environment("settings.env")["MOORAGE_JOBS__IN_SERVE"] == "false"


def test_more_than_one_can_be_lost() -> None:
    budget = by_kind("PodDisruptionBudget")["spec"]
    assert server()["spec"]["replicas"] > budget["minAvailable"] >= 1
    assert server()["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
