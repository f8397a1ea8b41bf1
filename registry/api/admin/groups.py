"""Groups and their members."""

from registry.api.admin.call import OperationContext
from registry.api.admin.fields import (
    AccountName,
    Page,
    PageAsked,
    RequestModel,
    ResponseModel,
    Timestamp,
    clamp,
    make_page,
)
from registry.api.admin.operation import ADMINS, Operation
from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.services.access import groups


class Group(ResponseModel, frozen=True):
    """A group of users."""

    name: str
    created_at: Timestamp
    members: list[str]


class NamedGroup(RequestModel, frozen=True):
    """The name of a group."""

    name: str


class CreateGroup(RequestModel, frozen=True):
    """The group to add."""

    name: AccountName


class Membership(RequestModel, frozen=True):
    """A group and a user."""

    group: str
    user: str


def _show(group: groups.Group) -> Group:
    return Group(group.name, rfc3339(group.created_at), group.members)


async def list_groups(call: OperationContext, asked: PageAsked) -> Page[Group]:
    """List groups with their members, by name."""
    n = clamp(asked.n)
    return make_page(
        await call.access.groups.list_page(n + 1, asked.last), n, _show, lambda row: row.name
    )


async def create_group(call: OperationContext, asked: CreateGroup) -> Group:
    """Add a group."""
    return _show(await call.access.groups.add(asked.name, call.actor))


async def get_group(call: OperationContext, asked: NamedGroup) -> Group:
    """Return a group."""
    return _show(await call.access.groups.get(asked.name))


async def delete_group(call: OperationContext, asked: NamedGroup) -> None:
    """Delete a group with its grants. Its members remain users."""
    await call.access.groups.remove(asked.name, call.actor)


async def add_member(call: OperationContext, asked: Membership) -> Group:
    """Add a user to a group. This has no effect if the user is already a member."""
    return _show(await call.access.groups.add_member(asked.group, asked.user, call.actor))


async def remove_member(call: OperationContext, asked: Membership) -> Group:
    """Remove a user from a group."""
    return _show(await call.access.groups.remove_member(asked.group, asked.user, call.actor))


_MEMBER = "/groups/{group}/members/{user}"

OPERATIONS = (
    Operation("GET", "/groups", list_groups, ADMINS),
    Operation("POST", "/groups", create_group, ADMINS, (ConflictError,), 201),
    Operation("GET", "/groups/{name}", get_group, ADMINS, (NotFoundError,)),
    Operation("DELETE", "/groups/{name}", delete_group, ADMINS, (NotFoundError,), 204),
    Operation("PUT", _MEMBER, add_member, ADMINS, (NotFoundError,)),
    Operation("DELETE", _MEMBER, remove_member, ADMINS, (NotFoundError,)),
)
