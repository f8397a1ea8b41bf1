"""Commands for accounts and permissions, run on the data directory and with `--url` on a server."""

from pathlib import Path

import bcrypt
import pytest

from tests.cli.moorage import LONG, Moorage

pytestmark = pytest.mark.timeout(120)


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
    assert "user.create" in moorage.run("audit", "list").stdout
    assert "since" in moorage.fails("audit", "list", "--since", "yesterday")
