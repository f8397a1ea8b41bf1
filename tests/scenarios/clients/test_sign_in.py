"""A registry with accounts: signed-in callers may do what was granted, and nobody else."""

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.app import open_runtime
from registry.config import load
from registry.metadata.engine import migrate
from tests.scenarios.clients.client import Client
from tests.scenarios.clients.images import rootfs, two_platforms
from tests.support.accounts import SECRET, Accounts, Login
from tests.support.servers.postgres import Cluster
from tests.support.servers.replicas import Replicas, running_replicas
from tests.support.servers.seaweed import Seaweed
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("clients")]

CLIENTS = ["docker", "podman"]


@dataclass(frozen=True)
class Team:
    """A running registry and its accounts."""

    host: str
    alice: Login
    robot: Login
    stranger: Login
    maker: Login


@pytest.fixture(scope="session", params=["sqlite", "postgres", "replicas"])
def team(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    """Yield a registry where Alice and a robot push to `team` and everyone pulls from `public`.

    The maker creates new tags.
    """
    data = tmp_path_factory.mktemp("team") / "data"
    if request.param == "sqlite":
        data.mkdir()
        (data / "lock").touch()
        settings: dict[str, str] = {}
        migrate.upgrade(f"sqlite:///{data}/moorage.db")
        yield from _run(data, settings)
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with cluster.database() as url:
        if request.param == "postgres":
            settings = {"MOORAGE_DATABASE__URL": url, "MOORAGE_AUTH__SECRET": SECRET}
            yield from _run(data, settings)
            return
        seaweed: Seaweed = request.getfixturevalue("seaweed")
        signed = {"auth.mode": "token"}
        with running_replicas(Replicas(data, url, seaweed.bucket(), signed)) as replicas:
            port = replicas.front.port
            yield asyncio.run(_populate(f"localhost:{port}", data / "operator", replicas.environ()))


def _run(data: Path, settings: dict[str, str]) -> Iterator[Team]:
    with serving(Server(data, workers=3, settings=settings)) as server:
        yield asyncio.run(_populate(f"localhost:{server.port}", data, settings))


async def _populate(host: str, data: Path, environ: dict[str, str]) -> Team:
    settings = load(config=None, data=data, overrides={}, environ=environ)
    async with open_runtime(settings) as opened:
        accounts = Accounts.of(opened)
        team = Team(
            host,
            alice=await accounts.user("alice", "correct horse battery"),
            robot=await accounts.robot("ci", 3600),
            stranger=await accounts.user("mallory", "another password"),
            maker=await accounts.user("maker", "makes, never moves"),
        )
        for subject in ("alice", "robot:ci"):
            await accounts.grant(subject, "team/**", "pull,push")
        await accounts.grant("alice", "public/**", "pull,push")
        await accounts.grant("maker", "team/**", "pull,create")
        await accounts.grant("anonymous", "public/**", "pull")
        return team


@dataclass(frozen=True)
class Person:
    """A user of a client that holds only that user's credentials."""

    client: Client
    host: str
    plain: tuple[str, ...]
    """The option with which the client accepts a registry without TLS."""

    def login(self, who: Login) -> str:
        return self.client(
            *("login", *self.plain, "--username", who.name, "--password-stdin", self.host),
            stdin=who.secret.encode(),
        )

    def logout(self) -> None:
        self.client("logout", self.host)

    def push(self, image: str) -> str:
        return self.client("push", *self.plain, image)

    def may_not_push(self, image: str) -> str:
        return self.client.refused("push", *self.plain, image)

    def pull(self, image: str) -> str:
        return self.client("pull", *self.plain, image)

    def may_not_pull(self, image: str) -> str:
        return self.client.refused("pull", *self.plain, image)


def alone(client: Client, folder: Path) -> Client:
    """Return the client with its own folder for credentials, where nobody has signed in."""
    folder.mkdir()
    files = {"DOCKER_CONFIG": folder / "docker", "REGISTRY_AUTH_FILE": folder / "auth.json"}
    (folder / "auth.json").write_text("{}")
    return Client(client.program, {**client.env, **{k: str(v) for k, v in files.items()}})


@pytest.fixture
def person(request: pytest.FixtureRequest, team: Team, tmp_path: Path) -> Person:
    name: str = request.param
    client: Client = request.getfixturevalue(name)
    plain = () if name == "docker" else ("--tls-verify=false",)
    return Person(alone(client, tmp_path / "home"), team.host, plain)


@pytest.fixture
def image(person: Person, team: Team, busybox: Path, tmp_path: Path) -> Iterator[str]:
    """Yield the name of an image that Alice may push, different in each test."""
    archive = tmp_path / "rootfs.tar"
    archive.write_bytes(rootfs(busybox, salt=str(tmp_path).encode()))
    name = f"{team.host}/team/app-{abs(hash(str(tmp_path)))}:1"
    person.client("import", str(archive), name)
    yield name
    # The next test must find no layers here.
    everything = ("image", "prune", "--all", "--force")
    person.client(*everything)


def wrongly(who: Login) -> Login:
    return Login(who.name, who.secret[:-1] + "!")


@pytest.mark.parametrize("person", CLIENTS, indirect=True)
def test_a_day_of_a_team(person: Person, image: str, team: Team) -> None:
    """Sign-in and pushes with valid, wrong and missing permissions, in the usual order."""
    person.may_not_push(image)
    refusal = person.client.refused(
        *("login", *person.plain, "--username", "alice", "--password", "wrong", team.host)
    )
    assert "unauthorized" in refusal or "invalid username/password" in refusal
    person.may_not_push(image)

    person.login(team.alice)
    person.push(image)
    elsewhere = image.replace("/team/", "/other/")
    person.client("tag", image, elsewhere)
    denied = person.may_not_push(elsewhere)
    assert "denied" in denied or "unauthorized" in denied or "authentication" in denied
    person.client("rmi", image)
    person.pull(image)
    person.logout()
    person.client("rmi", image)
    person.may_not_pull(image)

    person.login(team.stranger)
    person.may_not_pull(image)
    person.may_not_pull(image.replace("/app-", "/no-such-"))
    person.logout()

    person.login(team.robot)
    person.pull(image)
    person.client("tag", image, image.replace(":1", ":2"))
    person.push(image.replace(":1", ":2"))
    person.logout()


@pytest.mark.parametrize("person", CLIENTS, indirect=True)
def test_the_public_is_pulled_by_anybody_and_pushed_by_few(
    person: Person, image: str, team: Team
) -> None:
    public = image.replace("/team/", "/public/")
    person.client("tag", image, public)
    person.login(team.alice)
    person.push(public)
    person.logout()
    person.client("rmi", public, image)
    person.pull(public)
    person.client("tag", public, public.replace(":1", ":2"))
    person.may_not_push(public.replace(":1", ":2"))


@pytest.mark.parametrize("person", CLIENTS, indirect=True)
def test_who_may_only_make_tags_moves_none(
    person: Person, image: str, team: Team, busybox: Path, tmp_path: Path
) -> None:
    person.login(team.maker)
    person.push(image)
    person.push(image)  # The second push changes nothing.
    other = tmp_path / "other.tar"
    other.write_bytes(rootfs(busybox, salt=b"other" + str(tmp_path).encode()))
    person.client("import", str(other), image)
    person.may_not_push(image)
    person.client("tag", image, image.replace(":1", ":2"))
    person.push(image.replace(":1", ":2"))


@pytest.fixture
def source(tmp_path: Path) -> str:
    return f"oci:{two_platforms(tmp_path / 'source', '1.0').folder}:1.0"


def credentials(who: Login) -> str:
    return f"{who.name}:{who.secret}"


def test_skopeo_with_right_wrong_and_missing_rights(
    skopeo: Client, source: str, team: Team, tmp_path: Path
) -> None:
    client = alone(skopeo, tmp_path / "home")
    name = f"docker://{team.host}/team/carried-{tmp_path.name}:1.0"
    copy = ["copy", "--all", "--dest-tls-verify=false"]
    look = ["inspect", "--raw", "--tls-verify=false"]
    client.refused(*copy, source, name)
    client.refused(*copy, "--dest-creds", credentials(wrongly(team.alice)), source, name)
    client.refused(*copy, "--dest-creds", credentials(team.stranger), source, name)
    client(*copy, "--dest-creds", credentials(team.alice), source, name)
    client.refused(*look, name)
    client.refused(*look, "--creds", credentials(team.stranger), name)
    client(*look, "--creds", credentials(team.robot), name)
    client(
        *("login", "--tls-verify=false", "--username", team.robot.name, "--password-stdin"),
        team.host,
        stdin=team.robot.secret.encode(),
    )
    public = name.replace("/team/", "/public/")
    client.refused(
        "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", name, public
    )
    client(*look, name)
    client("logout", team.host)
    client.refused(*look, name)


def test_skopeo_shows_the_sentences_that_its_own_suite_expects(
    skopeo: Client, source: str, team: Team, tmp_path: Path
) -> None:
    client = alone(skopeo, tmp_path / "home")
    name = f"docker://{team.host}/team/said-{tmp_path.name}"
    alice, stranger = (["--creds", credentials(who)] for who in (team.alice, team.stranger))
    look, tags = ["inspect", "--tls-verify=false"], ["list-tags", "--tls-verify=false"]
    copy = ["copy", "--all", "--dest-tls-verify=false", source, f"{name}:1.0"]
    for arguments in ([*look, f"{name}:1.0"], [*tags, name], copy):
        assert "authentication required" in client.refused(*arguments)
    denied = "requested access to the resource is denied"
    assert denied in client.refused(*look, *stranger, f"{name}:1.0")
    assert denied in client.refused(*copy, "--dest-creds", credentials(team.stranger))
    client(*copy, "--dest-creds", credentials(team.alice))
    assert "manifest unknown" in client.refused(*look, *alice, f"{name}:gone")


def test_buildah_with_right_wrong_and_missing_rights(
    buildah: Client, busybox: Path, team: Team, tmp_path: Path
) -> None:
    client = alone(buildah, tmp_path / "home")
    archive = tmp_path / "rootfs.tar"
    archive.write_bytes(rootfs(busybox, salt=str(tmp_path).encode()))
    container = client("from", "scratch").strip()
    client("add", container, str(archive), "/")
    name = f"{team.host}/team/built-{tmp_path.name.replace('_', '-')}:1"
    client("commit", "--quiet", container, name)
    push = ["push", "--tls-verify=false"]
    client.refused(*push, name)
    client.refused(*push, "--creds", credentials(wrongly(team.alice)), name)
    client.refused(*push, "--creds", credentials(team.stranger), name)
    client(*push, "--creds", credentials(team.robot), name)
    client("rm", "--all")
    client("rmi", "--all", "--force")
    client.refused("pull", "--tls-verify=false", name)
    client("pull", "--tls-verify=false", "--creds", credentials(team.alice), name)
    client("rmi", "--all", "--force")


def test_a_robot_in_a_script(team: Team, tmp_path: Path) -> None:
    """A script can get a token with curl and push a manifest with it, without any client."""
    script = tmp_path / "script.sh"
    script.write_text(
        "set -eu\n"
        'scope="repository:team/scripted:pull,push"\n'
        'token=$(curl -sSf -u "$NAME:$SECRET" "http://$HOST/token?service=moorage&scope=$scope"'
        ' | sed \'s/.*"access_token":"\\([^"]*\\)".*/\\1/\')\n'
        'printf config > "$FOLDER/config"\n'
        'digest="sha256:$(sha256sum < "$FOLDER/config" | cut -d" " -f1)"\n'
        'curl -sSf -X POST -H "Authorization: Bearer $token" --data-binary "@$FOLDER/config" '
        '"http://$HOST/v2/team/scripted/blobs/uploads/?digest=$digest"\n'
        'curl -sSf -H "Authorization: Bearer $token" '
        '"http://$HOST/v2/team/scripted/blobs/$digest"\n'
    )
    env = {
        "PATH": "/usr/bin:/bin",
        "HOST": team.host,
        "NAME": team.robot.name,
        "SECRET": team.robot.secret,
        "FOLDER": str(tmp_path),
    }

    def run(**changed: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["sh", str(script)], env=env | changed, capture_output=True, check=False, timeout=30
        )

    done = run()
    assert (done.returncode, done.stdout) == (0, b"config"), done.stderr
    assert run(SECRET=team.robot.secret[:-1] + "x").returncode != 0
