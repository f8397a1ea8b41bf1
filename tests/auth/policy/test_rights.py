"""Permissions of accounts and of their credentials."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from registry.auth.policy.actions import (
    ALL_RIGHTS,
    NO_RIGHTS,
    Rights,
    parse_rights,
)
from registry.auth.policy.grants import read_bounds
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.policy import Policy
from registry.auth.policy.subjects import ANONYMOUS, AUTHENTICATED
from registry.errors import InputInvalidError
from registry.metadata.access.policy import Removal
from registry.metadata.access.signing_keys import KeyState, SigningKeyRow
from registry.oci.names import RepositoryName
from tests.auth.policy.helpers import (
    APP,
    NOW,
    PULL,
    UNREADABLE,
    account,
    grant,
    make,
    robot,
    secret,
    signed_in,
    user,
)


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
