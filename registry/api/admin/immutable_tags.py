"""Rules of immutable tags, which cannot be moved or deleted."""

from typing import Annotated

from msgspec import Meta

from registry.api.admin.call import OperationContext
from registry.api.admin.fields import (
    PAGE,
    Number,
    Page,
    Pattern,
    RequestModel,
    ResponseModel,
    Size,
    Timestamp,
    clamp,
    make_page,
)
from registry.api.admin.grants import PATTERN_ADMINS, SOME_ADMINS
from registry.api.admin.operation import Operation
from registry.auth.policy.patterns import RepositoryPattern
from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.oci.tag_patterns import TagPattern
from registry.services.protection import immutable_tags

TagGlob = Annotated[str, Meta(extra_json_schema={"examples": ["v*", "[0-9]*", "*"]})]


class ImmutableTagRule(ResponseModel, frozen=True):
    """A rule: tags that match `tags` are immutable in the repositories of the pattern."""

    id: int
    pattern: str
    tags: str
    created_by: str
    created_at: Timestamp


class ListImmutableTags(RequestModel, frozen=True):
    """A page of rules by ID: `n` entries after `last`."""

    n: Size = PAGE
    last: Number = 0


class NameImmutableTags(RequestModel, frozen=True):
    """A rule, by its pattern of repositories and its pattern of tags."""

    pattern: Pattern
    tags: TagGlob


def _show(row: immutable_tags.ImmutableRow) -> ImmutableTagRule:
    return ImmutableTagRule(row.id, row.pattern, row.tags, row.created_by, rfc3339(row.created_at))


async def list_immutable_tag_rules(
    call: OperationContext, asked: ListImmutableTags
) -> Page[ImmutableTagRule]:
    """List the rules of immutable tags that the caller may administer."""
    n, last = clamp(asked.n), asked.last
    found: list[immutable_tags.ImmutableRow] = []
    more = True
    while len(found) <= n and more:
        some = await call.registry.immutable_tags.list_page(PAGE, last)
        found += [row for row in some if call.administers(RepositoryPattern.parse(row.pattern))]
        more = len(some) == PAGE
        last = some[-1].id if some else last
    return make_page(found, n, _show, lambda row: row.id)


async def create_immutable_tag_rule(
    call: OperationContext, asked: NameImmutableTags
) -> ImmutableTagRule:
    """Make existing and future tags that match a pattern immutable."""
    return _show(
        await call.registry.immutable_tags.add(
            RepositoryPattern.parse(asked.pattern), TagPattern.parse(asked.tags), call.actor
        )
    )


async def delete_immutable_tag_rule(call: OperationContext, asked: NameImmutableTags) -> None:
    """Delete a rule of immutable tags."""
    await call.registry.immutable_tags.remove(
        RepositoryPattern.parse(asked.pattern), TagPattern.parse(asked.tags), call.actor
    )


_PATH = "/immutable-tags"

OPERATIONS = (
    Operation("GET", _PATH, list_immutable_tag_rules, SOME_ADMINS),
    Operation("POST", _PATH, create_immutable_tag_rule, PATTERN_ADMINS, (ConflictError,), 201),
    Operation(
        "POST", f"{_PATH}/delete", delete_immutable_tag_rule, PATTERN_ADMINS, (NotFoundError,), 204
    ),
)
