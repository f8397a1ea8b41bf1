"""No secret appears in logs, errors, the audit log, shown settings or the database."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from registry.metadata.tables import metadata
from tests.support.accounts import OPERATOR, Accounts, Login, bearer, get_token
from tests.support.audit_log import read_audit
from tests.support.authenticated_server import SETTINGS, client_of, operating
from tests.support.servers.server import ROOT, Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

PASSWORD = "correct horse battery staple"  # noqa: S105 - of a test
TYPED_AS_NAME = "hunter2 in the wrong place"
DATABASE_PASSWORD = "the-database's-password"  # noqa: S105 - of a test


@dataclass
class Scene:
    """A server at log level debug, with all secrets that exist and all texts that it produced."""

    server: Server
    http: httpx.AsyncClient
    accounts: Accounts
    root: Login
    secrets: dict[str, str] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)

    async def send(self, method: str, path: str, **more: object) -> httpx.Response:
        """Send a request whose response must not contain a secret."""
        answer = await self.http.request(method, path, **more)  # type: ignore[arg-type]
        self.heard.append(f"{answer.status_code} {answer.headers} {answer.text}")
        return answer

    async def send_all(self) -> set[int]:
        """Send valid and invalid requests of clients, and return all statuses."""
        robot = Login("robot+ci", self.secrets["robot"])
        personal = Login("alice", self.secrets["personal"])
        statuses = set()
        for login in (
            Login("alice", PASSWORD),
            personal,
            robot,
            Login("alice", self.secrets["robot"]),
            Login("bob", PASSWORD),
            Login(TYPED_AS_NAME, PASSWORD),
            Login(self.secrets["robot"], "x"),
        ):
            for path in ("/v2/", "/v2/team/app/tags/list", "/api/v1/me"):
                statuses.add((await self.send("GET", path, headers=login.basic)).status_code)
            fields = {"username": login.name, "password": login.secret, "grant_type": "no"}
            statuses.add((await self.send("POST", "/token", data=fields)).status_code)
            fields["grant_type"] = "password"
            answer = await self.http.post("/token", data=fields)  # a 200 response has a token
            if answer.status_code != 200:
                self.heard.append(answer.text)
            statuses.add(answer.status_code)
        for token in (self.secrets["access"], self.secrets["refresh"], self.secrets["robot"]):
            for headers in (bearer(token), {"Authorization": f"Token {token}"}, bearer(token[:-1])):
                answer = await self.send("GET", "/v2/team/app/tags/list", headers=headers)
                statuses.add(answer.status_code)
            fields = {"grant_type": "refresh_token", "refresh_token": token, "service": "other"}
            statuses.add((await self.send("POST", "/token", data=fields)).status_code)
            query = {"password": PASSWORD, "access_token": token, "refresh_token": token}
            statuses.add((await self.send("GET", "/v2/", params=query)).status_code)
        return statuses

    async def administer(self) -> set[int]:
        """Send changes of an admin that contain secrets, and return all statuses."""
        statuses = set()
        for method, path, body in (
            ("POST", "/api/v1/users", {"name": "dora", "password": PASSWORD}),
            ("POST", "/api/v1/users", {"name": "alice", "password": PASSWORD}),
            ("POST", "/api/v1/users", {"name": "x", "password": PASSWORD, "more": PASSWORD}),
            ("POST", "/api/v1/users", {"name": TYPED_AS_NAME, "password": PASSWORD}),
            ("POST", "/api/v1/users", {"name": "eve", "password": [PASSWORD]}),
            ("PUT", "/api/v1/users/alice/password", {"password": f"{PASSWORD}\n"}),
            ("POST", "/api/v1/users/alice/password", {"password": PASSWORD}),
        ):
            answer = await self.http.request(method, path, json=body, headers=self.root.basic)
            self.heard.append(answer.text.replace(TYPED_AS_NAME, ""))  # the name may be echoed
            statuses.add(answer.status_code)
        return statuses


@pytest.fixture(params=["json", "text"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    settings = {
        **SETTINGS,
        "MOORAGE_LOG__FORMAT": request.param,
        "MOORAGE_LOG__LEVEL": "debug",
        "MOORAGE_LIMITS__FAILED_SIGN_INS": "0",
    }
    with serving(Server(tmp_path / "data", 1, settings)) as server:
        yield server


@pytest.fixture
async def scene(server: Server) -> AsyncIterator[Scene]:
    async with operating(server) as accounts, client_of(server) as http:
        root = await accounts.user("root", "the password of an admin", admin=True)
        scene = Scene(server, http, accounts, root)
        alice = await accounts.user("alice", PASSWORD)
        await accounts.grant("alice", "team/**", "pull,push")
        robot, personal = await accounts.robot("ci"), await accounts.token("alice")
        answer = await http.get("/token?offline_token=true", headers=alice.basic)
        scene.secrets = {
            "password": PASSWORD,
            "admin's password": root.secret,
            "typed as name": TYPED_AS_NAME,
            "robot": robot.secret,
            "personal": personal.secret,
            "refresh": answer.json()["refresh_token"],
            "access": await get_token(http, alice, "repository:team/app:pull"),
            "setting": SETTINGS["MOORAGE_AUTH__SECRET"],
        }
        yield scene


def list_values(scene: Scene) -> dict[str, str]:
    """Return the random parts of the secrets that the registry generated."""
    names = ("robot", "personal", "refresh")
    return {f"{name}, its value": scene.secrets[name].rpartition("_")[2] for name in names}


def list_traces(scene: Scene) -> dict[str, str]:
    """Return the texts that must not appear: secrets, parts of secrets, and stored hashes."""
    traces = scene.secrets | list_values(scene)
    traces["access, its signature"] = scene.secrets["access"].rpartition(".")[2]
    for login in (Login("alice", PASSWORD), Login("robot+ci", scene.secrets["robot"])):
        traces[f"header of {login.name}"] = login.basic["Authorization"].partition(" ")[2]
    connection = sqlite3.connect(scene.server.data / "moorage.db")
    for query in (
        "SELECT password_hash FROM users WHERE password_hash IS NOT NULL",
        "SELECT hash FROM secrets",
        "SELECT hash FROM refresh_tokens",
    ):
        for (value,) in connection.execute(query):
            traces[f"{query}: {value[:8]}"] = value
    connection.close()
    return traces


def require_silence(traces: dict[str, str], where: str, text: str) -> None:
    for what, secret in traces.items():
        for form in {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]}:
            found = text.find(form)
            assert found < 0, f"{what} in {where}: …{text[max(0, found - 300) : found]}"


def require_silence_everywhere(scene: Scene, traces: dict[str, str]) -> None:
    require_silence(traces, "the log", scene.server.log.read_text())
    for said in scene.heard:
        require_silence(traces, "an answer", said)


def run_sql(scene: Scene, *statements: str) -> None:
    connection = sqlite3.connect(scene.server.data / "moorage.db", isolation_level=None)
    connection.execute("PRAGMA busy_timeout=5000")
    for statement in statements:
        connection.execute(statement)
    connection.close()


async def test_nothing_is_told_of_a_secret(scene: Scene) -> None:
    statuses = await scene.send_all() | await scene.administer()
    assert {200, 400, 401} <= statuses
    assert 500 not in statuses
    traces = list_traces(scene)
    require_silence_everywhere(scene, traces)
    for path in ("/metrics", "/readyz", "/.well-known/jwks.json", "/", "/api/v1/openapi.json"):
        require_silence(traces, path, (await scene.http.get(path)).text)
    rows = await read_audit(scene.accounts.access.audit)
    kinds = {row.kind for row in rows}
    assert {
        "sign-in.fail",
        "token.issue",
        "user.create",
        "robot.create",
        "access-token.create",
    } <= kinds
    require_silence(traces, "the audit_log", "\n".join(map(repr, rows)))


async def test_the_database_holds_no_secret_as_it_is(scene: Scene) -> None:
    await scene.send_all()
    plain = scene.secrets | list_values(scene)
    dump = sqlite3.connect(scene.server.data / "moorage.db")
    text = "\n".join(dump.iterdump())
    dump.close()
    require_silence(plain, "the database", text)
    for path in scene.server.data.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            for what, secret in plain.items():
                assert secret.encode() not in raw, (what, path.name)


async def test_a_database_in_trouble_says_no_parameters(scene: Scene) -> None:
    """SQLAlchemy includes the parameters in its exceptions."""
    traces = list_traces(scene)
    tables = ["secrets", "refresh_tokens", "audit_log", "users", "sign_in_failures", "private_keys"]
    assert set(tables) <= set(metadata.tables)
    refuse = "CREATE TRIGGER {0}_{1} BEFORE {1} ON {0} BEGIN SELECT RAISE(ABORT, 'trouble'); END"
    for table in tables:
        run_sql(scene, *(refuse.format(table, what) for what in ("INSERT", "UPDATE", "DELETE")))
    statuses = await scene.send_all() | await scene.administer()
    assert 503 in statuses
    run_sql(
        scene,
        "ALTER TABLE users RENAME TO gone",
        "UPDATE policy_revision SET revision = revision + 1",
    )
    statuses = await scene.send_all() | await scene.administer()
    assert 503 in statuses
    scene.server.wait_for_log("IntegrityError")
    scene.server.wait_for_log("OperationalError")
    stored = traces | {"a hash of a password": "$argon2id$"}
    require_silence_everywhere(scene, stored)


async def test_a_key_that_cannot_be_read_is_the_operators_business(scene: Scene) -> None:
    """The log names the file, but the response does not."""
    await scene.accounts.access.keys.rotate(OPERATOR)
    for path in (scene.server.data / "keys").iterdir():
        path.chmod(0o644)
    answer = await scene.send("GET", "/token", headers=Login("alice", PASSWORD).basic)
    assert answer.status_code in {500, 503}
    require_silence_everywhere(scene, list_traces(scene))
    scene.server.wait_for_log(str(scene.server.data))
    assert all(str(scene.server.data) not in said for said in scene.heard)


def test_the_settings_shown_hold_no_secret(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://moorage:{DATABASE_PASSWORD}@127.0.0.1:1/moorage"
    settings = {**SETTINGS, "MOORAGE_DATABASE__URL": url, "PYTHONPATH": str(ROOT)}
    secrets = {"database": DATABASE_PASSWORD, "setting": SETTINGS["MOORAGE_AUTH__SECRET"]}
    for command in (
        ["config", "show"],
        ["config", "show", "--json"],
        ["config", "check"],
        ["db", "status"],
        ["serve", "--listen", "127.0.0.1:0"],
        ["user", "list"],
    ):
        # A server keeps waiting for its database, so it must be stopped.
        ending = ["timeout", "8"] if command[0] == "serve" else []
        done = subprocess.run(
            [*ending, sys.executable, "-m", "registry.cli.main", *command, "--data", str(tmp_path)],
            env=settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout + done.stderr
        require_silence(secrets, " ".join(command), done.stdout + done.stderr)
