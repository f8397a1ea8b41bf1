"""Administrators of repositories, explanations of permissions, and random policies."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.policy.actions import (
    ALL_RIGHTS,
    GrantAction,
    Rights,
    format_rights,
    parse_rights,
    require_pull,
)
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.policy import Account, Policy
from registry.auth.policy.subjects import Subject, SubjectKind
from registry.oci.names import RepositoryName
from tests.auth.policy.helpers import (
    APP,
    GROUPS,
    NAMES,
    NOW,
    PATTERNS,
    PULL,
    ROBOTS,
    SUBJECTS,
    USERS,
    account,
    grant,
    make,
    robot,
    secret,
    signed_in,
    user,
)


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
