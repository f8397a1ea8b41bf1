"""A real Moorage server and the real clients that talk to it."""

import json
import os
import resource
import shutil
import tempfile
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.scenarios.clients.client import PATH, Client, find_program, need_root, unmount_below
from tests.scenarios.clients.engine import running_engine
from tests.scenarios.clients.repository import Repository
from tests.support.servers.nginx import Nginx
from tests.support.servers.postgres import Cluster
from tests.support.servers.replicas import Replicas, running_replicas
from tests.support.servers.seaweed import Seaweed
from tests.support.servers.server import Server, serving

LOGS = pytest.StashKey[list[Path]]()
LOG_LINES = 100
SOAK = int(os.environ.get("MOORAGE_SOAK", "1"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the registries of a test: one server, and for some tests two servers behind nginx."""
    if "registry" in metafunc.fixturenames:
        both = SOAK > 1 or metafunc.definition.get_closest_marker("replicas")
        kinds = [pytest.param(None, id="alone")] + [pytest.param("replicas")] * bool(both)
        metafunc.parametrize("registry", kinds, indirect=True, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the server's log below a failed test."""
    report = yield
    for log in item.config.stash.get(LOGS, []) if report.failed else []:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        report.sections.append((f"log of {log.stem}", "\n".join(lines)))
    return report


@pytest.fixture(scope="session")
def registry(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Iterator[Server | Nginx]:
    """Yield one server, or nginx in front of two servers that share a database and a bucket."""
    folder = tmp_path_factory.mktemp("registry")
    if getattr(request, "param", None) is None:
        with serving(Server(folder / "data")) as server:
            pytestconfig.stash[LOGS] = [server.log]
            yield server
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    seaweed: Seaweed = request.getfixturevalue("seaweed")
    with cluster.database() as url:
        replicas = Replicas(folder, url, seaweed.bucket())
        with running_replicas(replicas):
            front = replicas.front
            pytestconfig.stash[LOGS] = [replicas.a.log, replicas.b.log, front.folder / "error.log"]
            yield front


@pytest.fixture
def repository(registry: Server | Nginx) -> Iterator[Repository]:
    """Yield a repository that no other test pushes to."""
    with httpx.Client(base_url=registry.url, trust_env=False, timeout=30) as client:
        yield Repository(f"localhost:{registry.port}", f"team/app-{uuid.uuid4().hex[:12]}", client)


@pytest.fixture(scope="session")
def busybox() -> Path:
    return Path(find_program("busybox", "busybox-static"))


@pytest.fixture(scope="session")
def home(registry: Server | Nginx) -> Iterator[Path]:
    """Yield a home folder without credentials, configured for plain HTTP to the registry."""
    with short_folder() as folder:
        settings = folder / ".config" / "containers"
        settings.mkdir(parents=True)
        anything = {"default": [{"type": "insecureAcceptAnything"}]}
        (settings / "policy.json").write_text(json.dumps(anything))
        (settings / "registries.conf").write_text(
            "unqualified-search-registries = []\n"
            f'[[registry]]\nlocation = "localhost:{registry.port}"\ninsecure = true\n'
        )
        (folder / "auth.json").write_text("{}")
        yield folder


@pytest.fixture(scope="session")
def client_env(home: Path) -> dict[str, str]:
    """Return the complete environment of a client."""
    return {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(home),
        "DOCKER_CONFIG": str(home / ".docker"),
        "REGISTRY_AUTH_FILE": str(home / "auth.json"),
    }


@pytest.fixture(scope="session")
def docker(client_env: dict[str, str]) -> Iterator[Client]:
    with short_folder() as folder, running_engine(folder, client_env) as client:
        yield client


@pytest.fixture(scope="session")
def skopeo(client_env: dict[str, str]) -> Client:
    return Client(find_program("skopeo", "skopeo"), client_env)


@pytest.fixture(scope="session")
def podman(client_env: dict[str, str]) -> Iterator[Client]:
    need_root("podman")
    with container_storage(client_env) as env:
        client = Client(find_program("podman", "podman"), env)
        yield client
        client("rm", "--all", "--force")


@pytest.fixture(scope="session")
def buildah(client_env: dict[str, str]) -> Iterator[Client]:
    need_root("buildah")
    with container_storage(client_env) as env:
        client = Client(find_program("buildah", "buildah"), env | {"BUILDAH_ISOLATION": "chroot"})
        yield client
        client("rm", "--all")


@contextmanager
def container_storage(env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yield an environment with separate storage and portable settings for podman or buildah."""
    with short_folder() as folder:
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
        )
        limits = [f'"{name}={limit}:{limit}"' for name, limit in sorted(own_limits().items())]
        # Debian's crun does not support a mix of cgroups v1 and v2. runc does.
        runtime = 'runtime = "runc"\n' if shutil.which("runc", path=PATH) else ""
        (folder / "containers.conf").write_text(
            f"[containers]\ndefault_ulimits = [{', '.join(limits)}]\n"
            f'[engine]\n{runtime}cgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
            f'lock_type = "file"\ntmp_dir = "{folder / "tmp"}"\nvolume_path = "{folder}/volumes"\n'
            f'[network]\nnetwork_config_dir = "{folder}/networks"\n'
        )
        yield env | {
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
        }


def own_limits() -> dict[str, int]:
    """Return limits that need no privilege to raise limits, as podman's defaults do."""
    hard = {
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "nproc": resource.getrlimit(resource.RLIMIT_NPROC)[1],
    }
    unlimited = resource.RLIM_INFINITY
    return {name: 1024 if limit == unlimited else min(limit, 1024) for name, limit in hard.items()}


@contextmanager
def short_folder() -> Iterator[Path]:
    """Yield a folder whose path is short enough for sockets, and delete it with its mounts."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-"))
    try:
        yield folder
    finally:
        unmount_below(folder)
        shutil.rmtree(folder)
