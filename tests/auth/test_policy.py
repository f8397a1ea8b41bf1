"""Permissions: the indexed answers compared with a search through all grants."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.policy.actions import (
    ALL_RIGHTS,
    NO_RIGHTS,
    GrantAction,
    Rights,
    format_rights,
    parse_rights,
    require_pull,
)
from registry.auth.policy.grants import read_bounds
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.policy import Account, Policy
from registry.auth.policy.subjects import ANONYMOUS, AUTHENTICATED, Subject, SubjectKind
from registry.errors import InputInvalidError
from registry.metadata.access.grants import GrantRow
from registry.metadata.access.policy import PolicyRows, Removal
from registry.metadata.access.robots import RobotRow
from registry.metadata.access.secrets import SecretRow
from registry.metadata.access.signing_keys import KeyState, SigningKeyRow
from registry.metadata.access.users import UserRow
from registry.oci.names import RepositoryName

NOW = 1_000_000
PULL = frozenset({GrantAction.PULL})
APP = RepositoryName("team/app")
USERS, GROUPS, ROBOTS = ["ann", "bob"], ["devs", "ops"], ["ci", "ann"]
NAMES = ["ann", "ann/app", "ann/app/x", "ann-b/app", "team", "team/app", "team/app/x", "bob/a/b/c"]
PATTERNS = [*NAMES, "*", "**", "ann/*", "ann/**", "team/*", "team/**", "team/app/**", "bob/a/**"]
UNREADABLE = [
    *('[["team/*", []]]', '[["tea*", ["pull"]]]', '[["a", ["x"]]]', "", "no JSON", "null", "0"),
    *('{"team/*": ["pull"]}', '[["a"]]', '[["a", "pull"]]', '[["a", [["pull"]]]]', "[" * 100_000),
]
SUBJECTS = ["ann", "bob", "group:devs", "group:ops", "robot:ci", "robot:ann", "authenticated"]


def user(name: str, *, admin: bool = False, disabled: bool = False) -> UserRow:
    return UserRow(1, name, f"gen-{name}", admin, disabled, 0)


def robot(name: str, expires_at: int | None = None) -> RobotRow:
    return RobotRow(1, name, f"gen-{name}", 0, expires_at)


def secret(secret_id: str, **changed: Any) -> SecretRow:
    row = SecretRow(secret_id, None, None, "laptop", "hash", None, 0, None, None)
    return replace(row, **changed)


def grant(subject: str, pattern: str, *actions: str, number: int = 1) -> GrantRow:
    return GrantRow(number, subject, pattern, ",".join(actions), 0)


def make(*, personal: bool = False, **rows: Any) -> Policy:
    empty: dict[str, Any] = {
        "number": 7,
        "users": [user("ann"), user("bob")],
        "memberships": [],
        "robots": [robot("ci")],
        "secrets": [],
        "grants": [],
        "keys": [],
        "removals": {},
    }
    return Policy(PolicyRows(**empty | rows), personal_namespaces=personal)


def account(policy: Policy, credential: str) -> Account:
    found = policy.find_account(credential, NOW)
    assert found is not None
    return found


def signed_in(policy: Policy, name: str) -> Account:
    return account(policy, f"user:{name}:gen-{name}")


class TestRights:
    """Actions that grants allow."""

    def test_nobody_may_anything_by_default(self) -> None:
        policy = make()
        for who in (None, signed_in(policy, "ann"), account(policy, "robot:ci:gen-ci")):
            assert policy.rights(who, APP) == NO_RIGHTS
            assert not policy.is_admin(who)

    @pytest.mark.parametrize(
        ("subject", "ann", "bob", "robot", "anybody"),
        [
            ("ann", 1, 0, 0, 0),
            ("group:devs", 0, 1, 0, 0),
            ("robot:ci", 0, 0, 1, 0),
            ("robot:ann", 0, 0, 0, 0),
            ("group:ann", 0, 0, 0, 0),
            ("authenticated", 1, 1, 1, 0),
            ("anonymous", 1, 1, 1, 1),
        ],
    )
    def test_a_grant_is_for_its_subject(
        self, subject: str, ann: int, bob: int, robot: int, anybody: int
    ) -> None:
        policy = make(grants=[grant(subject, "team/*", "pull")], memberships=[("bob", "devs")])
        accounts = [
            signed_in(policy, "ann"),
            signed_in(policy, "bob"),
            account(policy, "robot:ci:gen-ci"),
            None,
        ]
        found = [policy.rights(who, APP) for who in accounts]
        assert found == [PULL if may else NO_RIGHTS for may in (ann, bob, robot, anybody)]

    def test_rights_of_all_grants_add_up(self) -> None:
        grants = [
            grant("ann", "team/app", "pull"),
            grant("group:devs", "team/**", "create"),
            grant("authenticated", "**", "overwrite"),
            grant("bob", "**", "delete"),
        ]
        policy = make(grants=grants, memberships=[("ann", "devs")])
        assert policy.rights(signed_in(policy, "ann"), APP) == parse_rights(["pull", "push"])

    def test_the_right_to_administer_holds_every_other(self) -> None:
        policy = make(grants=[grant("ann", "team/**", "admin")])
        assert policy.rights(signed_in(policy, "ann"), APP) == ALL_RIGHTS
        assert policy.rights(signed_in(policy, "ann"), RepositoryName("team")) == NO_RIGHTS

    @pytest.mark.parametrize("pattern", ["**", "team/**", "team/app"])
    @pytest.mark.parametrize("actions", [["push"], ["pull", "push", "delete"], ["admin"]])
    def test_nobody_changes_anything_without_signing_in(
        self, pattern: str, actions: list[str]
    ) -> None:
        """A grant to everyone allows at most pull, even if its row in the database says more."""
        policy = make(grants=[grant("anonymous", pattern, *actions)])
        for who in (None, signed_in(policy, "ann"), account(policy, "robot:ci:gen-ci")):
            assert policy.rights(who, APP) <= PULL
            assert not policy.administers(who, RepositoryPattern.parse("team/app"))
        assert not policy.explain(ANONYMOUS, APP, parse_rights(["push"])).allowed
        assert not policy.explain(AUTHENTICATED, APP, parse_rights(["admin"])).allowed

    def test_admins_may_everything(self) -> None:
        policy = make(users=[user("ann", admin=True)])
        assert policy.rights(signed_in(policy, "ann"), APP) == ALL_RIGHTS
        assert policy.is_admin(signed_in(policy, "ann"))

    def test_a_namespace_of_her_own(self) -> None:
        mine, beside = RepositoryName("ann/app"), RepositoryName("ann-b/app")
        on, off = make(personal=True), make()
        assert on.rights(signed_in(on, "ann"), mine) == ALL_RIGHTS
        assert off.rights(signed_in(off, "ann"), mine) == NO_RIGHTS
        for name in (beside, RepositoryName("ann"), RepositoryName("bob/app")):
            assert on.rights(signed_in(on, "ann"), name) == NO_RIGHTS

    def test_a_robot_has_no_namespace(self) -> None:
        policy = make(robots=[robot("ann")], personal=True)
        who = account(policy, "robot:ann:gen-ann")
        assert policy.rights(who, RepositoryName("ann/app")) == NO_RIGHTS
        assert not policy.administers(who, RepositoryPattern.parse("ann/app"))


class TestCredentials:
    """Owners of credentials, and whether credentials are still valid."""

    @pytest.mark.parametrize(
        "credential",
        [
            *("", "user", "user:", "user::", "user:ann", "user:ann:", "user:ann:gen-bob"),
            *("user:cy:gen-cy", "robot:ann:gen-ann", "robot:ci:", "secret:", "secret:x", ":ann:x"),
            *("ann", "group:devs:", "outside:ann", "anonymous", "user:ann:gen-ann:"),
        ],
    )
    def test_nobody_has_it(self, credential: str) -> None:
        assert make().find_account(credential, NOW) is None

    def test_it_ends_with_its_generation(self) -> None:
        old, new = make(), make(users=[replace(user("ann"), generation="next")])
        credential = "user:ann:gen-ann"
        assert old.find_account(credential, NOW) is not None
        assert new.find_account(credential, NOW) is None

    def test_a_disabled_user_has_none(self) -> None:
        policy = make(
            users=[user("ann", admin=True, disabled=True)], secrets=[secret("s", user="ann")]
        )
        assert policy.find_account("user:ann:gen-ann", NOW) is None
        assert policy.find_account("secret:s", NOW) is None
        assert policy.has_users

    @pytest.mark.parametrize(
        ("expires", "good"), [(None, True), (NOW + 1, True), (NOW, False), (1, False)]
    )
    def test_what_expires(self, expires: int | None, *, good: bool) -> None:
        policy = make(
            robots=[robot("ci", expires), robot("steady")],
            secrets=[
                secret("of-ann", user="ann", expires_at=expires),
                secret("of-ci", robot="ci"),
                secret("of-steady", robot="steady", expires_at=expires),
            ],
        )
        for credential in ("secret:of-ann", "robot:ci:gen-ci", "secret:of-ci", "secret:of-steady"):
            assert (policy.find_account(credential, NOW) is not None) is good
        assert policy.find_account("robot:steady:gen-steady", NOW) is not None

    def test_a_secret_whose_owner_is_gone(self) -> None:
        policy = make(secrets=[secret("a", user="gone"), secret("b", robot="gone"), secret("c")])
        for credential in ("secret:a", "secret:b", "secret:c"):
            assert policy.find_account(credential, NOW) is None

    def test_a_robot_has_another_name_than_a_user(self) -> None:
        policy = make(robots=[robot("ann")], secrets=[secret("s", robot="ann")])
        assert account(policy, "secret:s").name == "robot+ann"
        assert account(policy, "robot:ann:gen-ann").name == "robot+ann"
        assert account(policy, "user:ann:gen-ann").name == "ann"

    def test_keys(self) -> None:
        keys = [
            SigningKeyRow(kid, "{}", state, 0, 0)
            for kid, state in [("a", KeyState.RETIRED), ("b", KeyState.ACTIVE)]
        ]
        found = make(keys=keys).active_key
        assert found is not None
        assert found.kid == "b"
        assert make(keys=keys[:1]).active_key is None

    def test_removals(self) -> None:
        policy = make(removals={APP: Removal(5, 100)})
        assert [policy.was_removed(APP, since=since) for since in (4, 5, 6)] == [True, False, False]
        assert [policy.was_removed_after(APP, at) for at in (99, 100, 101)] == [True, False, False]
        assert not policy.was_removed(RepositoryName("other"), since=0)
        assert not policy.was_removed_after(RepositoryName("other"), 0)


class TestBounds:
    """Personal access tokens that are limited to part of their owner's permissions."""

    def bounded(self, scopes: str | None, *, admin: bool = False, **rows: Any) -> Policy:
        secrets = [secret("s", user="ann", scopes=scopes)]
        return make(users=[user("ann", admin=admin)], secrets=secrets, **rows)

    @pytest.mark.parametrize(
        ("scopes", "rights"),
        [
            (None, ALL_RIGHTS),
            ([], NO_RIGHTS),
            ([["team/*", ["pull"]]], PULL),
            ([["other/*", ["pull"]]], NO_RIGHTS),
            ([["team/*", ["pull"]], ["**", ["create"]]], parse_rights(["pull", "create"])),
            ([["**", ["admin"]]], ALL_RIGHTS),
        ],
    )
    def test_it_may_no_more_than_it_says(self, scopes: Any, rights: Rights) -> None:
        policy = self.bounded(None if scopes is None else json.dumps(scopes), admin=True)
        who = account(policy, "secret:s")
        assert policy.rights(who, APP) == rights
        assert policy.is_admin(who) is (scopes is None)
        assert policy.administers(who, RepositoryPattern.parse("team/app")) is (scopes is None)

    def test_it_may_no_more_than_its_owner(self) -> None:
        policy = self.bounded('[["**", ["admin"]]]', grants=[grant("ann", "team/*", "pull")])
        assert policy.rights(account(policy, "secret:s"), APP) == PULL

    def test_it_bounds_the_owners_namespace(self) -> None:
        policy = self.bounded('[["ann/app", ["pull"]]]', personal=True)
        who = account(policy, "secret:s")
        assert policy.rights(who, RepositoryName("ann/app")) == PULL
        assert policy.rights(who, RepositoryName("ann/other")) == NO_RIGHTS
        assert not policy.administers(who, RepositoryPattern.parse("ann/app"))

    @pytest.mark.parametrize("text", UNREADABLE)
    def test_bounds_that_cannot_be_read_are_refused(self, text: str) -> None:
        with pytest.raises(InputInvalidError):
            read_bounds(text)

    @pytest.mark.parametrize("text", UNREADABLE)
    def test_they_shut_out_who_has_them_and_nobody_else(
        self, text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Unreadable bounds refuse the credential and leave all others valid.

        A newer version or a manual change of the database may have written the bounds. They cannot
        be trusted, so the credential gets no access at all.
        """
        policy = make(
            secrets=[
                secret("bad", user="ann", scopes=text),
                secret("worse", robot="ci", name="", scopes=text),
                secret("good", user="ann", name="desk", scopes='[["team/*", ["pull"]]]'),
                secret("plain", robot="ci", name=""),
            ],
            grants=[grant(subject, "**", "pull", "push") for subject in ("ann", "bob", "robot:ci")],
        )
        for gone in ("bad", "worse"):
            assert policy.find_secret(gone) is None
            assert policy.find_account(f"secret:{gone}", NOW) is None
        assert policy.rights(account(policy, "secret:good"), APP) == PULL
        for credential in ("secret:plain", "user:ann:gen-ann", "user:bob:gen-bob"):
            assert policy.rights(account(policy, credential), APP) > PULL
        told = [record.getMessage() for record in caplog.records]
        assert [("of ann cannot" in t, "robot ci cannot" in t) for t in told] == [
            (True, False),
            (False, True),
        ]

    def test_a_robot_may_no_more_than_its_secret_says_either(self) -> None:
        """No version limits robot secrets yet, but this version must obey limits of a later one."""
        policy = make(
            secrets=[secret("s", robot="ci", scopes='[["team/*", ["pull"]]]')],
            grants=[grant("robot:ci", "**", "pull", "push")],
        )
        who = account(policy, "secret:s")
        assert policy.rights(who, APP) == PULL
        assert policy.rights(who, RepositoryName("other/app")) == NO_RIGHTS


class TestAdministers:
    """Permission to administer access."""

    @pytest.mark.parametrize(
        ("pattern", "administers"),
        [
            *(("team/**", True), ("team/*", True), ("team/app", True), ("team/app/**", True)),
            *(("team", False), ("**", False), ("*", False), ("teams/app", False)),
            ("other/**", False),
        ],
    )
    @pytest.mark.parametrize("subject", ["ann", "group:devs", "authenticated"])
    def test_within_what_is_hers(self, subject: str, pattern: str, *, administers: bool) -> None:
        grants = [grant(subject, "team/**", "admin"), grant("ann", "**", "pull", "push", "delete")]
        policy = make(grants=grants, memberships=[("ann", "devs")])
        who = signed_in(policy, "ann")
        assert policy.administers(who, RepositoryPattern.parse(pattern)) is administers
        assert not policy.is_admin(who)

    def test_her_own_namespace(self) -> None:
        policy = make(personal=True)
        ann = signed_in(policy, "ann")
        found = [
            policy.administers(ann, RepositoryPattern.parse(pattern))
            for pattern in ("ann/**", "ann/*", "ann/app", "ann", "bob/app", "**")
        ]
        assert found == [True, True, True, False, False, False]

    def test_admins_everywhere_and_nobody_else(self) -> None:
        everything = RepositoryPattern.parse("**")
        policy = make(users=[user("ann", admin=True), user("bob")])
        assert policy.administers(signed_in(policy, "ann"), everything)
        assert not policy.administers(signed_in(policy, "bob"), everything)
        assert not policy.administers(None, everything)


class TestExplain:
    """The sentences and grants of an explanation."""

    def ask(self, policy: Policy, subject: str, *wanted: str) -> tuple[bool, str, list[int]]:
        decision = policy.explain(Subject.parse(subject), APP, parse_rights(wanted))
        return decision.allowed, decision.reason, [found.id for found in decision.grants]

    def test_the_grants_that_decide(self) -> None:
        grants = [
            grant("ann", "team/*", "pull", number=1),
            grant("group:devs", "**", "create", number=2),
            grant("authenticated", "team/app", "delete", number=3),
        ]
        policy = make(grants=grants, memberships=[("ann", "devs")])
        assert self.ask(policy, "ann", "pull") == (True, "granted", [1])
        assert self.ask(policy, "ann", "pull", "create") == (True, "granted", [1, 2])
        allowed, reason, found = self.ask(policy, "ann", "push")
        assert (allowed, found) == (False, [1, 2])
        assert "overwrite" in reason
        assert "create" not in reason
        useless = "granted, but without pull, which every action requires"
        assert self.ask(policy, "group:devs", "delete") == (False, useless, [3])
        assert self.ask(policy, "authenticated", "delete") == (False, useless, [3])
        assert self.ask(policy, "ann", "delete") == (True, "granted", [1, 3])
        assert not self.ask(policy, "anonymous", "delete")[0]

    @pytest.mark.parametrize(
        ("subject", "word"), [("cy", "no user"), ("robot:cy", "no robot"), ("bob", "disabled")]
    )
    def test_whoever_is_not_there(self, subject: str, word: str) -> None:
        grants = [grant("authenticated", "**", "admin"), grant(subject, "**", "admin")]
        policy = make(users=[user("ann"), user("bob", disabled=True)], grants=grants)
        allowed, reason, found = self.ask(policy, subject, "pull")
        assert not allowed
        assert word in reason
        assert found == []

    def test_admins_and_owners(self) -> None:
        policy = make(users=[user("ann", admin=True), user("team")], personal=True)
        assert "admin" in self.ask(policy, "ann", "delete")[1]
        assert "namespace" in self.ask(policy, "team", "delete")[1]


@dataclass
class World:
    """A random policy as plain facts."""

    grants: dict[tuple[str, str], Rights] = field(default_factory=dict)
    memberships: set[tuple[str, str]] = field(default_factory=set)
    admins: set[str] = field(default_factory=set)
    disabled: set[str] = field(default_factory=set)
    personal: bool = False

    def make(self, **rows: Any) -> Policy:
        return make(
            users=[
                user(name, admin=name in self.admins, disabled=name in self.disabled)
                for name in USERS
            ],
            robots=[robot(name) for name in ROBOTS],
            memberships=sorted(self.memberships),
            grants=[
                grant(subject, pattern, *format_rights(rights), number=number)
                for number, ((subject, pattern), rights) in enumerate(self.grants.items())
            ],
            personal=self.personal,
            **rows,
        )

    def subjects_of(self, subject: str) -> set[str]:
        """Return the subject and all subjects that include it."""
        groups = {f"group:{group}" for member, group in self.memberships if member == subject}
        everybody = {subject, "anonymous"}
        return everybody if subject == "anonymous" else everybody | groups | {"authenticated"}

    def rights(self, subject: str, name: str) -> Rights:
        """Compute the permissions by checking every grant."""
        if subject in self.admins or (
            self.personal and subject in USERS and name.startswith(f"{subject}/")
        ):
            return ALL_RIGHTS
        rights: set[GrantAction] = set()
        for (whom, pattern), given_rights in self.grants.items():
            if whom in self.subjects_of(subject) and RepositoryPattern.parse(pattern).matches(name):
                rights |= given_rights & PULL if whom == "anonymous" else given_rights
        return ALL_RIGHTS if GrantAction.ADMIN in rights else frozenset(rights)

    def administers(self, subject: str, pattern: RepositoryPattern) -> bool:
        own = RepositoryPattern.parse(f"{subject}/**") if subject in USERS else None
        return (
            subject in self.admins
            or (self.personal and own is not None and own.covers(pattern))
            or any(
                GrantAction.ADMIN in rights
                and whom in self.subjects_of(subject) - {"anonymous"}
                and RepositoryPattern.parse(covering).covers(pattern)
                for (whom, covering), rights in self.grants.items()
            )
        )


some_rights = st.frozensets(st.sampled_from(sorted(ALL_RIGHTS)), min_size=1)
worlds = st.builds(
    World,
    st.dictionaries(
        st.tuples(st.sampled_from([*SUBJECTS, "anonymous"]), st.sampled_from(PATTERNS)),
        some_rights,
        max_size=12,
    ),
    st.sets(st.tuples(st.sampled_from(USERS), st.sampled_from(GROUPS))),
    st.sets(st.sampled_from(USERS), max_size=1),
    st.sets(st.sampled_from(USERS), max_size=1),
    st.booleans(),
)


bounds = st.lists(st.tuples(st.sampled_from(PATTERNS), some_rights.map(format_rights)), max_size=4)


@given(worlds, bounds)
def test_what_a_bounded_token_lets_be_seen(world: World, scopes: list[Any]) -> None:
    world.disabled.clear()
    policy = world.make(secrets=[secret("s", user="ann", scopes=json.dumps(scopes))])
    who = account(policy, "secret:s")
    visible = policy.list_visible(who)
    for repository in NAMES:
        may = GrantAction.PULL in policy.rights(who, RepositoryName(repository))
        assert any(pattern.matches(repository) for pattern in visible) == may, repository


def account_of(policy: Policy, subject: Subject) -> Account | None:
    name = subject.name
    return policy.find_account(f"{subject.kind}:{name}:gen-{name}", NOW)


@given(worlds, some_rights)
def test_random_policies(world: World, wanted: Rights) -> None:
    policy = world.make()
    for text in [*SUBJECTS, "anonymous"]:
        subject = Subject.parse(text)
        person = subject.kind in {SubjectKind.USER, SubjectKind.ROBOT}
        who = account_of(policy, subject) if person else None
        for repository in NAMES:
            name = RepositoryName(repository)
            decision = policy.explain(subject, name, wanted)
            for found in decision.grants:
                assert found.pattern.matches(repository)
                assert str(found.subject) in world.subjects_of(text)
            if text in world.disabled:
                assert who is None
                assert not decision.allowed
                continue
            rights = world.rights(text, repository)
            assert decision.allowed == (wanted <= require_pull(rights)), f"{text} {wanted}"
            if person or text == "anonymous":
                assert policy.rights(who, name) == rights, f"{text} in {repository}"
                visible = any(p.matches(repository) for p in policy.list_visible(who))
                assert visible == (GrantAction.PULL in rights), f"{text} in {repository}"
        if person and who is not None:
            for pattern in map(RepositoryPattern.parse, PATTERNS):
                assert policy.administers(who, pattern) == world.administers(text, pattern)
