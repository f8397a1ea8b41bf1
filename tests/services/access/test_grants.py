"""Changes of groups and grants."""

from collections.abc import Awaitable

import pytest

from registry.auth.policy.actions import (
    parse_rights,
)
from registry.auth.policy.subjects import Subject
from registry.errors import (
    AccountNameInvalidError,
    ConflictError,
    InputInvalidError,
    NotFoundError,
)
from registry.metadata import tables
from registry.services.access.groups import Groups
from registry.services.access.robots import Robots
from registry.services.access.users import Users
from tests.metadata.rows import rows
from tests.services.access.access_services import PASSWORD, PULL, ROOT, TEAM, House, all_at_once

pytestmark = pytest.mark.anyio


class TestGroups:
    """Groups of users."""

    async def test_they_fill_and_empty(self, filled: House) -> None:
        assert (await filled.groups.add_member("devs", "bob", ROOT)).members == ["ann", "bob"]
        assert (await filled.groups.remove_member("devs", "ann", ROOT)).members == ["bob"]
        assert (await filled.groups.get("devs")).members == ["bob"]
        assert [group.name for group in await filled.groups.list_page(10)] == ["devs"]
        with pytest.raises(ConflictError):
            await filled.groups.add("devs", ROOT)
        with pytest.raises(AccountNameInvalidError):
            await filled.groups.add("Devs", ROOT)

    async def test_a_right_of_the_group_ends_with_membership(self, filled: House) -> None:
        await filled.grant("group:devs", "push")
        assert await filled.may("ann", "push")
        await filled.groups.remove_member("devs", "ann", ROOT)
        assert not await filled.may("ann", "push")

    async def test_a_member_and_her_group_go_at_once(self, houses: list[House]) -> None:
        for number in range(5):
            user, group = f"user{number}", f"group{number}"
            await houses[0].users.add(user, None, ROOT)
            await houses[0].users.add(f"stays{number}", None, ROOT)
            await houses[0].groups.add(group, ROOT)
            errors = await all_at_once(
                [
                    houses[0].groups.add_member(group, user, ROOT),
                    houses[1].users.remove(user, ROOT),
                    houses[1].groups.remove(group, ROOT),
                ]
            )
            assert set(errors) <= {NotFoundError}
        assert await rows(houses[0].database, tables.group_members) == []


class TestGrants:
    """Grants of actions on patterns."""

    async def test_rights_add_up_and_are_taken_apart(self, filled: House) -> None:
        assert await filled.grant("ann", "create") == parse_rights(["pull", "create"])
        assert await filled.grant("ann", "push") == parse_rights(["pull", "push"])
        assert len(await filled.grants.list_page(10)) == 3
        ann = Subject.parse("ann")
        await filled.grants.remove(ann, TEAM, ROOT, parse_rights(["overwrite"]))
        assert not await filled.may("ann", "push")
        assert await filled.may("ann", "create")
        await filled.grants.remove(ann, TEAM, ROOT)
        assert not await filled.may("ann", "create")
        assert await filled.may("ann", "pull")  # The group has the grant.

    async def test_what_was_not_given_is_not_taken(self, filled: House) -> None:
        """A caller with `admin` can still push, so revoking an implied action must fail visibly."""
        await filled.grant("bob", "admin")
        before = await filled.audit_log()
        for subject, right in (("ann", "delete"), ("bob", "push")):
            with pytest.raises(NotFoundError):
                await filled.grants.remove(
                    Subject.parse(subject), TEAM, ROOT, parse_rights([right])
                )
        assert await filled.audit_log() == before

    @pytest.mark.parametrize("actions", [["push"], ["pull", "push"], ["admin"], ["delete"]])
    async def test_nobody_pushes_without_signing_in(self, house: House, actions: list[str]) -> None:
        with pytest.raises(InputInvalidError):
            await house.grant("anonymous", *actions)
        assert await house.grants.list_page(10) == []
        assert await house.grant("anonymous", "pull") == PULL

    @pytest.mark.parametrize("subject", ["ann", "group:devs", "robot:ci", "authenticated"])
    async def test_rights_given_at_once_add_up(self, houses: list[House], subject: str) -> None:
        await houses[0].fill()
        for number in range(5):
            pattern = f"other{number}/**"
            given: list[Awaitable[object]] = [
                houses[index % 2].grant(subject, action, pattern=pattern)
                for index, action in enumerate(["pull", "create", "overwrite", "delete"])
            ]
            assert await all_at_once(given) == []
            (row,) = await rows(houses[0].database, tables.grants, pattern=pattern)
            assert row.actions == "pull,push,delete"

    @pytest.mark.parametrize("subject", ["ann", "group:devs", "robot:ci"])
    async def test_they_go_with_their_subject(self, filled: House, subject: str) -> None:
        kind, _, name = subject.rpartition(":")
        nouns: dict[str, Users | Groups | Robots] = {
            "": filled.users,
            "group": filled.groups,
            "robot": filled.robots,
        }
        await nouns[kind].remove(name, ROOT)
        left = {row.subject for row in await rows(filled.database, tables.grants)}
        assert left == {"ann", "group:devs", "robot:ci"} - {subject}
        if kind == "":
            await filled.users.add(name, PASSWORD, ROOT)
            assert await filled.access_tokens.list_of(name) == []
        elif kind == "group":
            assert (await filled.groups.add(name, ROOT)).members == []
        else:
            await filled.robots.add(name, None, ROOT)
        assert not await filled.may(subject, "pull")

    async def test_none_is_left_of_one_who_goes_meanwhile(self, houses: list[House]) -> None:
        await houses[0].users.add("stays", None, ROOT)
        for number in range(8):
            name = f"user{number}"
            await houses[0].users.add(name, None, ROOT)
            errors = await all_at_once(
                [
                    houses[0].grant(name, "pull"),
                    houses[1].users.remove(name, ROOT),
                    houses[0].grant(name, "push", pattern="**"),
                ]
            )
            assert set(errors) <= {NotFoundError}
        assert await rows(houses[0].database, tables.grants) == []

    async def test_found_by_number(self, filled: House) -> None:
        every = await filled.grants.list_page(10)
        assert [await filled.grants.get(grant.id) for grant in every] == every
        assert await filled.grants.list_page(1, every[0].id) == every[1:2]
