"""Commands for accounts and permissions, run on the data directory and with `--url` on a server."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.oci.media_types import OCI_INDEX
from tests.support import launcher
from tests.support.kit import index_manifest
from tests.support.postgres import Cluster
from tests.support.server import ROOT, Server, serving

pytestmark = pytest.mark.timeout(120)

PASSWORD = "the password of root"  # noqa: S105 - of a test
LONG = "correct horse battery"


@dataclass
class Moorage:
    """Runner of commands. `where` holds the options of the registry, `settings` its environment."""

    folder: Path
    where: list[str]
    settings: dict[str, str] = field(default_factory=dict)

    def run(
        self, *arguments: str, typed: str = "", expect: int = 0
    ) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
        done = launcher.run(
            *arguments, *self.where, typed=typed, env={**kept, **self.settings}, cwd=self.folder
        )
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, typed: str = "") -> Any:
        return json.loads(self.run(*arguments, "--json", typed=typed).stdout)

    def fails(self, *arguments: str, typed: str = "") -> str:
        """Run a command that must exit with status 1, and return the one line it prints."""
        said = self.run(*arguments, typed=typed, expect=1).stderr
        assert said.startswith("moorage: ")
        assert said.count("\n") == 1
        return said


def at(data: Path) -> Moorage:
    return Moorage(data.parent, ["--data", str(data)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return the data directory of a registry with one user, an admin."""
    folder = tmp_path / "data"
    at(folder).run("user", "add", "root", "--admin", "--password-stdin", typed=PASSWORD + "\n")
    return folder


@pytest.fixture
def server(data: Path) -> Iterator[Server]:
    with serving(Server(data)) as started:
        yield started


@pytest.fixture(params=["here", "there"])
def moorage(request: pytest.FixtureRequest, data: Path) -> Moorage:
    """Return a runner of commands on the data directory, and one through the API."""
    if request.param == "here":
        return at(data)
    server: Server = request.getfixturevalue("server")
    where = ["--url", server.url, "--user", "root"]
    return Moorage(data.parent, where, {"MOORAGE_PASSWORD": PASSWORD})


def test_users(moorage: Moorage, tmp_path: Path) -> None:
    added = moorage.json("user", "add", "alice", "--password-stdin", typed=LONG + "\n")
    assert added.pop("created_at").endswith("Z")
    assert added == {"name": "alice", "admin": False, "disabled": False}
    done = moorage.run("user", "add", "bob", "--admin", "--no-password")
    assert (done.stdout, done.stderr) == ("Added bob.\n", "")
    assert "already" in moorage.fails("user", "add", "bob", "--no-password")
    moorage.run("user", "change", "alice", "--admin")
    moorage.run("user", "change", "bob", "--no-admin")
    moorage.run("user", "disable", "bob")
    listed = moorage.run("user", "list").stdout.splitlines()
    assert [line.split() for line in listed] == [
        ["NAME", "ADMIN", "STATE"],
        ["alice", "admin"],
        ["bob", "disabled"],
        ["root", "admin"],
    ]
    moorage.run("user", "enable", "bob")
    moorage.run("user", "passwd", "bob", "--password-stdin", typed=LONG + "\n")
    hashed = bcrypt.hashpw(LONG.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"carol:{hashed}\nbob:{hashed}\n")
    imported = moorage.json("user", "import", str(tmp_path / "htpasswd"))
    assert imported == {"added": ["carol"], "existing": ["bob"], "invalid": []}
    assert "cannot be read" in moorage.fails("user", "import", str(tmp_path / "nothing"))
    moorage.run("user", "remove", "bob")
    users = moorage.json("user", "list")["users"]
    assert [(u["name"], u["disabled"]) for u in users] == [
        ("alice", False),
        ("carol", False),
        ("root", False),
    ]
    assert "no user 'bob'" in moorage.fails("user", "remove", "bob")


def test_an_htpasswd_file_with_lines_that_cannot_be_imported(
    moorage: Moorage, tmp_path: Path
) -> None:
    hashed = bcrypt.hashpw(LONG.encode(), bcrypt.gensalt(4)).decode()
    path = tmp_path / "htpasswd"
    path.write_text(f"Ann@example.org:{hashed}\nbad name:{hashed}\n_ci:{hashed}\neve:{{SHA}}x\n")
    said = moorage.run("user", "import", str(path), expect=1).stderr
    assert "line 2: invalid user name 'bad name'" in said
    assert "line 4: expected NAME:BCRYPT" in said
    assert "--skip" in said
    done = moorage.run("user", "import", str(path), "--skip").stdout
    assert done.startswith("Added 2; 0 existed already. 2 lines left out:\n  line 2: ")
    moorage.run("grant", "add", "Ann@example.org", "team/**", "pull")
    moorage.run("token", "add", "Ann@example.org", "laptop")
    assert "Ann@example.org" in moorage.run("grant", "list").stdout
    moorage.run("user", "remove", "Ann@example.org")


def test_the_last_admin_stays(moorage: Moorage) -> None:
    moorage.run("user", "add", "alice", "--no-password")
    for command in (("change", "root", "--no-admin"), ("disable", "root"), ("remove", "root")):
        assert "make another user an admin first" in moorage.fails("user", *command)
    moorage.run("user", "change", "alice", "--admin")
    moorage.run("user", "change", "root", "--no-admin")


@pytest.mark.parametrize(
    ("answer", "status"), [("", 1), ("n", 1), ("yes please", 1), ("y", 0), ("YES", 0)]
)
def test_a_removal_on_a_terminal_is_asked_for(data: Path, answer: str, status: int) -> None:
    here = at(data)
    here.run("user", "add", "ann", "--no-password")
    here.run("token", "add", "ann", "laptop")
    here.run("grant", "add", "ann", "team/**", "pull")
    shown = on_terminal(["user", "remove", "ann", "--data", str(data)], answer, status)
    assert "This removes the user ann with 1 token and 1 grant. Continue? [y/N]" in shown
    assert ("nothing was removed" in shown) == bool(status)
    names = [user["name"] for user in here.json("user", "list")["users"]]
    assert ("ann" in names) == bool(status)


def test_yes_is_not_asked_for(data: Path) -> None:
    at(data).run("user", "add", "ann", "--no-password")
    shown = on_terminal(["user", "remove", "ann", "--yes", "--data", str(data)], None, 0)
    assert shown == "Removed ann.\n"


def test_deleting_a_repository_on_a_terminal_is_asked_for(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data")) as server:
        base = f"{server.url}/v2/app"
        raw = index_manifest([])
        put = httpx.put(f"{base}/manifests/v1", content=raw, headers={"Content-Type": OCI_INDEX})
        assert put.status_code == 201
        command = ["repo", "delete", "app", "--data", str(server.data)]
        shown = on_terminal(command, "n", 1)
        assert f"This deletes app with 1 tag, 1 manifest and 0 blobs ({len(raw)}B)." in shown
        assert httpx.get(f"{base}/manifests/v1").status_code == 200
        on_terminal(command, "y", 0)
        assert httpx.get(f"{base}/manifests/v1").status_code == 404


def on_terminal(arguments: list[str], answer: str | None, status: int) -> str:
    """Run a command on a terminal, answer its question, and return its whole output."""
    ours, theirs = pty.openpty()
    with launcher.Launched(
        arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        while answer is not None and not shown.endswith(b"[y/N] "):
            shown += os.read(ours, 1024)
        if answer is not None:
            os.write(ours, answer.encode() + b"\n")
        with contextlib.suppress(OSError):  # the terminal closes when the command ends
            while piece := os.read(ours, 1024):
                shown += piece
        assert process.wait(100) == status, shown
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_groups(moorage: Moorage) -> None:
    moorage.run("group", "add", "devs")
    moorage.run("user", "add", "alice", "--no-password")
    assert moorage.run("group", "join", "devs", "root", "alice").stdout == "devs: alice, root\n"
    assert moorage.json("group", "leave", "devs", "root")["members"] == ["alice"]
    assert moorage.run("group", "list").stdout == "NAME\tMEMBERS\ndevs\talice\n"
    assert "not in the group" in moorage.fails("group", "leave", "devs", "root")
    moorage.run("group", "remove", "devs")
    assert moorage.json("group", "list") == {"groups": []}


def test_robots(moorage: Moorage) -> None:
    made = moorage.run("robot", "add", "ci", "--expires", "90d")
    assert made.stdout.startswith("moorage_")
    assert made.stdout.count("\n") == 1
    assert "--username robot+ci --password-stdin" in made.stderr
    assert made.stdout.strip() not in made.stderr
    second = moorage.json("robot", "add", "deploy")
    assert list(second) == ["name", "username", "secret", "expires_at"]
    assert (second["username"], second["expires_at"]) == ("robot+deploy", None)
    assert moorage.json("robot", "rotate", "ci", "--overlap", "1h")["secret"] != made.stdout.strip()
    listed = moorage.run("robot", "list").stdout
    assert "robot+ci" in listed
    assert "moorage_" not in listed
    moorage.run("robot", "remove", "ci")
    assert [r["name"] for r in moorage.json("robot", "list")["robots"]] == ["deploy"]
    assert "duration" in moorage.fails("robot", "add", "other", "--expires", "soon")


def test_tokens(moorage: Moorage) -> None:
    scopes = ["--scope", "team/**:pull,push", "--scope", "public/*:pull"]
    made = moorage.run("token", "add", "root", "laptop", *scopes, "--expires", "30d")
    assert made.stdout.startswith("moorage_")
    assert made.stdout.count("\n") == 1
    [token] = moorage.json("token", "list", "root")["tokens"]
    assert token["scopes"] == [
        {"pattern": "team/**", "actions": ["pull", "push"]},
        {"pattern": "public/*", "actions": ["pull"]},
    ]
    assert "team/**:pull,push public/*:pull" in moorage.run("token", "list", "root").stdout
    assert "PATTERN:ACTIONS" in moorage.fails("token", "add", "root", "x", "--scope", "team")
    assert "unknown action" in moorage.fails("token", "add", "root", "x", "--scope", "team:pul")
    moorage.run("token", "revoke", "root", "laptop")
    assert moorage.json("token", "list", "root") == {"user": "root", "tokens": []}


def test_grants(moorage: Moorage) -> None:
    moorage.run("user", "add", "alice", "--no-password")
    done = moorage.run("grant", "add", "alice", "team/**", "create,overwrite")
    assert done.stdout == "alice may push in team/**\n"
    assert "has no grant of pull" in done.stderr
    assert moorage.run("grant", "add", "alice", "team/**", "pull").stderr == ""
    moorage.run("grant", "add", "anonymous", "public/*", "pull")
    grants = moorage.json("grant", "list")["grants"]
    assert [(g["subject"], g["pattern"], g["actions"]) for g in grants] == [
        ("alice", "team/**", ["pull", "push"]),
        ("anonymous", "public/*", ["pull"]),
    ]
    assert len(moorage.json("grant", "list", "--subject", "alice")["grants"]) == 1
    allowed = moorage.run("grant", "check", "alice", "team/app", "push")
    assert allowed.stdout == "allowed: granted\n  alice may pull, push in team/**\n"
    refused = moorage.run("grant", "check", "alice", "other", "pull", expect=1)
    assert refused.stdout == "not allowed: no grant to alice allows pull in other\n"
    moorage.run("grant", "remove", "alice", "team/**", "overwrite")
    assert moorage.json("grant", "check", "alice", "team/app", "create")["allowed"]
    moorage.run("grant", "check", "alice", "team/app", "overwrite", expect=1)
    moorage.run("grant", "remove", "alice", "team/**")
    assert "has no grant" in moorage.fails("grant", "remove", "alice", "team/**")
    assert "unknown action" in moorage.fails("grant", "add", "alice", "team", "pul")
    assert "no group" in moorage.fails("grant", "add", "group:devs", "team", "pull")


def test_keys(moorage: Moorage) -> None:
    [first] = moorage.json("key", "list")["keys"]
    second = moorage.json("key", "rotate")["kid"]
    moorage.run("key", "revoke", first["kid"])
    states = {key["kid"]: key["state"] for key in moorage.json("key", "list")["keys"]}
    assert states == {first["kid"]: "revoked", second: "active"}
    assert "active" in moorage.run("key", "list").stdout
    assert "no signing key" in moorage.fails("key", "revoke", "nothing")


def test_the_audit_log(moorage: Moorage) -> None:
    moorage.run("user", "add", "alice", "--no-password")
    events = moorage.json("audit", "list")["events"]
    assert [event["target"] for event in events] == ["root", "alice"]
    assert events[0]["actor"] == "operator"
    assert len(moorage.json("audit", "list", "--since", events[1]["at"])["events"]) == 1
    assert len(moorage.json("audit", "list", "--since", "24h")["events"]) == 2
    assert moorage.json("audit", "list", "--since", "0s")["events"] == []
    actor = events[1]["actor"]
    assert moorage.json("audit", "list", "--actor", actor)["events"][-1] == events[1]
    assert "user.add" in moorage.run("audit", "list").stdout
    assert "since" in moorage.fails("audit", "list", "--since", "yesterday")


def test_the_first_user_makes_a_registry_and_is_told_so(tmp_path: Path) -> None:
    moorage = at(tmp_path / "data")
    for command in ("user", "group", "robot", "grant", "key", "audit"):
        assert "no registry in" in moorage.fails(command, "list")
    typed = LONG + "\n"
    # Nothing is created for an invalid name or password.
    assert "invalid user name" in moorage.fails(
        "user", "add", "a/b", "--password-stdin", typed=typed
    )
    assert "no password" in moorage.fails("user", "add", "alice", "--password-stdin")
    assert "no terminal" in moorage.fails("user", "add", "alice")
    assert list(tmp_path.iterdir()) == []
    first = moorage.run("user", "add", "alice", "--admin", "--password-stdin", typed=typed)
    assert first.stdout == "Added alice.\n"
    assert "must sign in" in first.stderr
    assert moorage.run("user", "add", "bob", "--no-password").stderr == ""
    with serving(Server(moorage.folder / "data")) as server:
        assert httpx.get(f"{server.url}/v2/").status_code == 401
        signed_in = httpx.get(f"{server.url}/v2/", auth=("alice", LONG))
        assert signed_in.status_code == 200
    assert "last user" not in moorage.run("user", "remove", "bob").stderr
    assert "last user" in moorage.fails("user", "remove", "alice")


def test_the_first_user_on_postgres(tmp_path: Path, postgres: Cluster) -> None:
    with postgres.database() as url:
        moorage = at(tmp_path / "data")
        moorage.settings["MOORAGE_DATABASE__URL"] = url
        add = ("user", "add", "alice", "--password-stdin")
        assert "[auth] secret" in moorage.fails(*add, typed=LONG + "\n")
        moorage.settings["MOORAGE_AUTH__SECRET"] = "0123456789abcdef" * 2
        moorage.run(*add, typed=LONG + "\n")
        assert moorage.json("user", "list")["users"][0]["name"] == "alice"
    with postgres.database(empty=True) as url:
        # In a database without tables, the command creates the schema.
        moorage.settings["MOORAGE_DATABASE__URL"] = url
        moorage.run(*add, typed=LONG + "\n")
        assert moorage.json("user", "list")["users"][0]["name"] == "alice"
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.execute(
                tables.schema_version.update().values(version=tables.schema_version.c.version - 1)
            )
        assert "moorage db upgrade" in moorage.fails("user", "list")


def test_the_first_user_closes_a_registry_that_serves(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data", workers=2)) as server:
        assert httpx.get(f"{server.url}/v2/").status_code == 200
        far = Moorage(tmp_path, ["--url", server.url, "--user", "x"], {"MOORAGE_PASSWORD": "x"})
        assert "moorage user add NAME --admin" in far.fails("user", "list")
        at(server.data).run("user", "add", "root", "--password-stdin", typed=PASSWORD + "\n")
        for _ in range(8):
            with httpx.Client() as fresh:
                assert fresh.get(f"{server.url}/v2/").status_code == 401


def test_ways_to_sign_in_from_afar(data: Path, server: Server) -> None:
    far = ["--url", server.url]
    assert "--user NAME" in Moorage(data.parent, far).fails("user", "list")
    root = [*far, "--user", "root"]
    assert "no terminal" in Moorage(data.parent, root).fails("user", "list")
    stdin = Moorage(data.parent, [*root, "--password-stdin"])
    assert stdin.json("user", "list", typed=PASSWORD + "\n")["users"]
    assert "wrong" in stdin.fails("user", "list", typed="something else\n")
    secret = at(data).run("token", "add", "root", "laptop").stdout.strip()
    token = Moorage(data.parent, far, {"MOORAGE_TOKEN": secret})
    assert token.json("user", "list")["users"]
    bounded = at(data).run("token", "add", "root", "small", "--scope", "**:admin").stdout.strip()
    small = Moorage(data.parent, far, {"MOORAGE_TOKEN": bounded})
    refused = small.fails("user", "list")
    assert "requires an admin account; use the password or a token without scopes" in refused


def test_a_tag_is_restored_from_afar(data: Path, server: Server) -> None:
    where = ["--url", server.url, "--user", "root"]
    far = Moorage(data.parent, where, {"MOORAGE_PASSWORD": PASSWORD})
    path = f"{server.url}/v2/app/manifests/latest"
    with httpx.Client(auth=("root", PASSWORD)) as http:
        for raw in (index_manifest([]), index_manifest([]) + b" "):
            pushed = http.put(path, content=raw, headers={"Content-Type": OCI_INDEX})
            assert pushed.status_code == 201, pushed.text
    new, old = (line["digest"] for line in far.json("tag", "history", "app:latest")["history"])
    assert "did not exist" in far.fails("tag", "restore", "app:latest", "--at", "1h")
    assert far.run("tag", "restore", "app:latest").stdout == f"app:latest points at {old}\n"
    assert far.json("tag", "restore", "app:latest", "--digest", new)["digest"] == new
    assert "no tag v1 in the history of app" in far.fails("tag", "history", "app:v1")


def test_her_own_password_from_afar(data: Path, server: Server) -> None:
    at(data).run("user", "add", "alice", "--password-stdin", typed=LONG + "\n")
    where = ["--url", server.url, "--user", "alice"]
    alice = Moorage(data.parent, where, {"MOORAGE_PASSWORD": LONG})
    assert "requires the account root or an admin account" in alice.fails(
        "user", "passwd", "root", "--password-stdin", typed="x" * 9
    )
    alice.run("user", "passwd", "alice", "--password-stdin", typed="another password\n")
    assert "wrong" in alice.fails("token", "list", "alice")
    again = Moorage(data.parent, where, {"MOORAGE_PASSWORD": "another password"})
    assert again.json("token", "list", "alice")["tokens"] == []


def test_arguments_that_are_no_text(data: Path) -> None:
    strange = os.fsdecode(b"\xff")
    for command in (("audit", "list", "--actor"), ("user", "disable"), ("robot", "rotate")):
        assert at(data).fails(*command, strange) == "moorage: an argument is not UTF-8\n"


def test_places_that_are_no_registry(data: Path) -> None:
    for url, said in (
        ("registry.example.org", "address of a registry"),
        ("ftp://127.0.0.1", "address of a registry"),
        ("http://me:secret@127.0.0.1", "address of a registry"),
        ("http://127.0.0.1:1", "cannot reach"),
    ):
        far = Moorage(data.parent, ["--url", url], {"MOORAGE_TOKEN": "x"})
        answer = far.fails("user", "list")
        assert said in answer
        assert "secret" not in answer


def test_a_password_is_typed_twice_and_not_shown(data: Path) -> None:
    for second, status in ((LONG, 0), ("something else", 1)):
        ours, theirs = pty.openpty()
        with launcher.Launched(
            ["user", "passwd", "root", "--data", str(data)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            shown = b""
            prompts = (b"New password of root: ", b"Repeat the password: ")
            for prompt, answer in zip(prompts, (LONG, second), strict=True):
                while not shown.endswith(prompt):
                    shown += os.read(ours, 1024)
                os.write(ours, answer.encode() + b"\n")
            assert process.wait(100) == status
        os.close(ours)
        assert LONG.encode() not in shown


def test_secrets_are_no_arguments() -> None:
    """All accounts of the machine can read the arguments of a process."""
    for command in (("user", "add"), ("user", "passwd"), ("robot", "add"), ("token", "add")):
        usage = launcher.run(*command, "--help").stdout
        assert "--password " not in usage
        assert "PASSWORD]" not in usage


def test_help_is_quick() -> None:
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, registry.cli.main as m; m.build_parser(); print(*sys.modules)",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {"sqlalchemy", "starlette", "httpx", "msgspec", "argon2", "jwt", "uvicorn"}
    assert not heavy.intersection(loaded)
