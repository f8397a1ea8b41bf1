"""Permissions of the admin API: each operation by each role, compared with a table."""

import re
from typing import Any

import httpx
import pytest

from registry.auth.policy import principals
from registry.auth.policy.patterns import RepositoryPattern
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.oci.tag_patterns import TagPattern
from registry.operations.table import BASE, OPERATIONS
from registry.services.mirrors.mirror import Mirror
from registry.services.mirrors.options import MirrorOptions
from registry.services.retention.rules import RetentionRule
from registry.services.syncs.options import SyncOptions
from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.support.accounts import ANONYMOUS, AUTH, OPERATOR, Accounts, Login
from tests.support.kit import index_manifest

pytestmark = pytest.mark.anyio

NAME = RepositoryName("team/app")

ROLES = ("anonymous", "herself", "other", "pattern", "bounded", "admin")

# `pattern` has a grant of admin in team/**. `bounded` is a token of an admin with a scope for all
# repositories.
RIGHTS = """
get_me         401 200 200 200 200 200
list_users     401 403 403 403 403 200
create_user       401 403 403 403 403 201
get_user       401 403 403 403 403 200
update_user    401 403 403 403 403 200
delete_user    401 403 403 403 403 204
set_password   401 204 403 403 403 204
import_users   401 403 403 403 403 200
list_tokens    401 200 403 403 403 200
create_token      401 201 403 403 403 201
revoke_token   401 204 403 403 403 204
list_groups    401 403 403 403 403 200
create_group      401 403 403 403 403 201
get_group      401 403 403 403 403 200
delete_group   401 403 403 403 403 204
add_member     401 403 403 403 403 200
remove_member  401 403 403 403 403 200
list_robots    401 403 403 403 403 200
create_robot      401 403 403 403 403 201
get_robot      401 403 403 403 403 200
rotate_robot   401 403 403 403 403 200
delete_robot   401 403 403 403 403 204
list_grants    401 200 200 200 403 200
create_grant      401 403 403 201 403 201
revoke_actions     401 403 403 204 403 204
delete_grant   401 403 403 204 403 204
check_grant    401 403 403 200 403 200
list_quotas    401 403 403 403 403 200
set_quota      401 403 403 403 403 200
delete_quota   401 403 403 403 403 204
list_immutable_tag_rules    401 200 200 200 403 200
create_immutable_tag_rule     401 403 403 201 403 201
delete_immutable_tag_rule  401 403 403 204 403 204
list_holds     401 200 200 200 403 200
create_hold       401 403 403 201 403 201
delete_hold    401 403 403 204 403 204
list_keys      401 403 403 403 403 200
rotate_key     401 403 403 403 403 201
revoke_key     401 403 403 403 403 204
list_events    401 403 403 200 403 200
get_default_mirror 401 403 403 403 403 200
set_default_mirror 401 403 403 403 403 200
list_mirrors   401 403 403 403 403 200
create_mirror  401 403 403 403 403 201
get_mirror     401 403 403 403 403 200
test_mirror    401 403 403 403 403 200
set_mirror     401 403 403 403 403 200
get_mirror_usage  401 403 403 403 403 200
refresh_tag    401 403 403 403 403 503
list_held_digests  401 403 403 403 403 200
get_mirror_status 401 403 403 403 403 200
evict_images   401 403 403 403 403 200
delete_mirror  401 403 403 403 403 204
start_sync     401 403 403 403 403 201
list_syncs     401 403 403 403 403 200
get_sync       401 403 403 403 403 200
cancel_sync    401 403 403 403 403 200
list_schedules  401 403 403 403 403 200
create_schedule 401 403 403 403 403 201
delete_schedule 401 403 403 403 403 204
get_gc_status  401 403 403 403 403 200
run_gc         401 403 403 403 403 200
explain_digest 401 403 403 403 403 200
list_repositories 401 200 200 200 200 200
get_repository    401 403 403 200 200 200
delete_repository 401 403 403 200 403 200
list_tags         401 403 403 200 200 200
copy_tag          401 403 403 200 200 200
delete_tag        401 403 403 200 200 200
list_tag_history 401 403 403 200 403 200
restore_tag      401 403 403 200 403 200
delete_image     401 403 403 200 403 200
get_usage        401 403 403 403 403 200
measure_freed    401 403 403 200 403 200
list_retention_rules   401 200 200 200 403 200
set_retention_rules    401 403 403 200 403 200
enable_retention_rules 401 403 403 200 403 200
disable_retention_rules 401 403 403 200 403 200
delete_retention_rules 401 403 403 204 403 204
plan_retention         401 403 403 200 403 200
run_retention          401 403 403 200 403 200
list_retention_runs    401 403 403 200 403 200
list_retention_drops   401 403 403 404 403 404
restore_retention_run  401 403 403 404 403 404
get_retention_status   401 403 403 403 403 200
"""

PASSWORD = "the password of alice"  # noqa: S105 - of a test
BCRYPT = "$2b$04$abcdefghijklmnopqrstuu1dmtQyzKTQyqfXqhRIlOyF5OJUOy4ZO"

# `alice` is the account that the operations are about. Objects that a role would change have the
# name of the role.
BODIES: dict[str, dict[str, Any]] = {
    "create_user": {"name": "new-{role}"},
    "update_user": {"admin": False},
    "set_password": {"password": PASSWORD, "current": PASSWORD},
    "import_users": {"htpasswd": f"imported-{{role}}:{BCRYPT}"},
    "create_token": {"name": "new-{role}"},
    "create_group": {"name": "new-{role}"},
    "add_member": {},
    "create_robot": {"name": "new-{role}"},
    "rotate_robot": {},
    "create_grant": {"subject": "alice", "pattern": "team/{role}", "actions": ["pull"]},
    "revoke_actions": {"subject": "alice", "pattern": "team/take/{role}"},
    "set_quota": {"pattern": "new-quota/{role}", "limit": 1024},
    "delete_quota": {"pattern": "old-quota/{role}"},
    "create_immutable_tag_rule": {"pattern": "team/{role}", "tags": "v*"},
    "delete_immutable_tag_rule": {"pattern": "team/take/{role}", "tags": "v*"},
    "create_hold": {"repository": "team/app", "digest": "{digest}", "reason": "{role}"},
    "delete_repository": {"repository": "team/old-repo/{role}"},
    "copy_tag": {
        "source_repository": "team/app",
        "source_reference": "set",
        "repository": "team/app",
        "tag": "copy-{role}",
    },
    "delete_tag": {"repository": "team/app", "tag": "old-{role}"},
    "measure_freed": {"tags": [{"repository": "team/app", "tag": "set"}]},
    "restore_tag": {"repository": "team/app", "tag": "back", "digest": "{digest}"},
    "delete_image": {
        "repository": "team/app",
        "reference": "{digest}",
        "all_tags": True,
        "dry_run": True,
    },
    "create_mirror": {"name": "new-{role}", "url": "https://a.example", "prefix": "new/{role}"},
    "set_default_mirror": {"name": "hub"},
    "set_mirror": {"url": "https://a.example"},
    "evict_images": {"dry_run": True},
    "start_sync": {},
    "create_schedule": {"every": "6h", "tags": ["{role}"]},
    "refresh_tag": {"repository": "hub/app", "tag": "1"},
    "rotate_key": {},
    "revoke_key": {},
    "run_gc": {},
    "set_retention_rules": {"pattern": "team/{role}", "keep_newest": 9},
    "enable_retention_rules": {"pattern": "team/old-rules/{role}"},
    "disable_retention_rules": {"pattern": "team/old-rules/{role}"},
    "delete_retention_rules": {"pattern": "team/old-rules/{role}"},
    "run_retention": {"pattern": "team/*"},
    "restore_retention_run": {"pattern": "team/*", "run": 1},
}
QUERIES = {
    "check_grant": {"subject": "alice", "repository": "team/app", "action": "pull"},
    "plan_retention": {"pattern": "team/**"},
    "list_retention_runs": {"pattern": "team/**"},
    "list_retention_drops": {"pattern": "team/**"},
    "get_repository": {"repository": "team/old-repo/admin"},
    "list_tags": {"repository": "team/app"},
    "list_tag_history": {"repository": "team/app", "tag": "set"},
}
BLOB = b"a blob"
NAMES = {
    "group": "devs",
    "user": "alice",
    "kid": "{kid}",
    "run": "1",
    "schedule": "1",
    "digest": str(Digest.of(BLOB)),
}
IDS = {"delete_hold": "{hold}"}
NAMED = {
    "delete_user": "leaver",
    "revoke_token": "old-{role}",
    "get_group": "devs",
    "delete_group": "leavers",
    "get_robot": "ci",
    "rotate_robot": "ci",
    "delete_robot": "old",
    "get_mirror": "hub",
    "set_mirror": "hub",
    "test_mirror": "hub",
    "get_mirror_usage": "hub",
    "get_mirror_status": "hub",
    "evict_images": "hub",
    "refresh_tag": "hub",
    "list_held_digests": "hub",
    "delete_mirror": "quay",
    "start_sync": "hub",
    "list_syncs": "hub",
    "get_sync": "hub",
    "cancel_sync": "hub",
    "list_schedules": "hub",
    "create_schedule": "hub",
    "delete_schedule": "hub",
}
# Names that do not exist, as replacements for those that do.
MISSING = {
    "{grant}": "987654321",
    "{hold}": "987654321",
    "{digest}": f"sha256:{'0' * 64}",
    "{kid}": "nothing",
    "alice": "nobody",
    "old-rules": "no-rules",
    "old-repo": "no-repo",
    "leavers": "no-group",
    "leaver": "nobody",
    "set": "never-set",
    "devs": "no-group",
    "hub": "no-mirror",
    "quay": "no-mirror",
    "old-quota": "no-quota",
    "old-{role}": "no-token",
    "old": "no-robot",
    "ci": "no-robot",
    str(Digest.of(BLOB)): str(Digest.of(b"no blob")),
}


async def _sign_up(api: Api) -> dict[str, Login]:
    accounts = Accounts.of(api.opened)
    admin = await accounts.user("root", admin=True)
    logins = {
        "anonymous": ANONYMOUS,
        "herself": await accounts.user("alice", PASSWORD),
        "other": await accounts.user("bob"),
        "pattern": await accounts.user("carol"),
        "bounded": await accounts.token("root", "bounded", [("**", "admin")]),
        "admin": admin,
    }
    pushed = await api.http.post(
        f"/v2/app/blobs/uploads/?digest={Digest.of(BLOB)}", content=BLOB, headers=admin.basic
    )
    assert pushed.status_code == 201, pushed.text
    await accounts.user("leaver")
    await accounts.grant("carol", "team/**", "admin")
    for name in ("devs", "leavers"):
        await api.opened.access.groups.add(name, OPERATOR)
    for name in ("ci", "old"):
        await accounts.robot(name)
    for name in ("hub", "quay"):
        mirror = Mirror(name, RepositoryName(name), "http://127.0.0.1:1", MirrorOptions())
        await api.opened.registry.mirrors.add(mirror, OPERATOR)
    for every_s in (60, 120):
        await api.opened.registry.syncs.request("hub", SyncOptions(), OPERATOR, is_dry=True)
        options = SyncOptions(tags=(str(every_s),))
        await api.opened.registry.syncs.add_schedule("hub", options, every_s, OPERATOR)
    for role in ROLES:
        await accounts.token("alice", f"old-{role}")
        await api.opened.access.quotas.set(f"old-quota/{role}", 1024, OPERATOR)
        await accounts.grant("alice", f"team/take/{role}", "pull")
        await accounts.grant("alice", f"team/gone/{role}", "pull")
        pattern = RepositoryPattern.parse(f"team/old-rules/{role}")
        rule = RetentionRule(pattern, keep_newest=9, drop=("x",))
        await api.opened.registry.retention_rules.set(rule, OPERATOR)
    await _protect(api)
    return logins


async def _protect(api: Api) -> None:
    """Add a hold on a manifest and a rule of immutable tags for each role."""
    registry, raw = api.opened.registry, index_manifest([])
    pushed = await registry.manifests.put(
        NAME,
        raw,
        None,
        principals.OPERATOR,
        set_tags=[Tag("set"), *(Tag(f"old-{role}") for role in ROLES)],
    )
    for role in ROLES:
        old = RepositoryName(f"team/old-repo/{role}")
        await registry.manifests.put(old, raw, None, principals.OPERATOR, set_tags=[Tag("set")])
        await registry.holds.add(NAME, pushed.digest, role, OPERATOR)
        pattern = RepositoryPattern.parse(f"team/take/{role}")
        await registry.immutable_tags.add(pattern, TagPattern("v*"), OPERATOR)


async def _fill(api: Api, role: str) -> dict[str, str]:
    """Return replacements for the names that the registry generates."""
    grants = await api.opened.access.grants.list_page(1000)
    ids = {str(grant.pattern): str(grant.id) for grant in grants}
    keys = await api.opened.access.keys.list_all()
    holds = {hold.reason: hold for hold in await api.opened.registry.holds.list_page(1000)}
    return {
        "role": role,
        "grant": ids.get(f"team/gone/{role}", "0"),
        "hold": str(holds[role].id) if role in holds else "0",
        "digest": str(Digest.of(index_manifest([]))),
        "kid": next(key.kid for key in keys if key.state == "active"),
    }


async def _send(
    api: Api, name: str, login: Login, fill: dict[str, str], missing: dict[str, str]
) -> httpx.Response:
    operation = next(operation for operation in OPERATIONS if operation.name == name)

    def write(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: write(each) for key, each in value.items()}
        if isinstance(value, list):
            return [write(each) for each in value]
        if not isinstance(value, str):
            return value
        for there, gone in missing.items():
            value = value.replace(there, gone)
        return value.format(**fill)

    names = {**NAMES, "name": NAMED.get(name, "alice"), "id": IDS.get(name, "{grant}")}
    path = operation.path.format(**{key: write(value) for key, value in names.items()})
    return await api.http.request(
        operation.method,
        BASE + path,
        headers=login.basic if login.name else {},
        json=write(BODIES.get(name, {})) if operation.has_body else None,
        params=write(QUERIES.get(name, {})),
    )


async def test_each_operation_by_each_role(start_api: Started) -> None:
    expected = {
        line.split()[0]: [int(status) for status in line.split()[1:]]
        for line in RIGHTS.strip().splitlines()
    }
    async with start_api(AUTH) as api:
        logins = await _sign_up(api)
        found: dict[str, list[int]] = {}
        for operation in OPERATIONS:
            for role in ROLES:
                fill = await _fill(api, role)
                answer = await _send(api, operation.name, logins[role], fill, {})
                found.setdefault(operation.name, []).append(answer.status_code)
    assert found == expected


async def test_a_refusal_does_not_tell_what_there_is(start_api: Started) -> None:
    async with start_api(AUTH) as api:
        logins = await _sign_up(api)
        for operation in OPERATIONS:
            for role in ("anonymous", "other", "bounded"):
                fill = await _fill(api, role)
                there = await _send(api, operation.name, logins[role], fill, {})
                if there.status_code not in {401, 403}:
                    continue
                gone = await _send(api, operation.name, logins[role], fill, MISSING)
                assert (gone.status_code, _mask(gone)) == (there.status_code, _mask(there))
                assert gone.headers.keys() == there.headers.keys()


def _mask(answer: httpx.Response) -> str:
    """Return the body without the names that the request gave, which a refusal may repeat."""
    names = sorted({*MISSING, *MISSING.values()}, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, names)), "*", answer.text)
