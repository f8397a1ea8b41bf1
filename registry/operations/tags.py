"""Tags: listing, copying and deleting them, and their history."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from registry.auth.policy.actions import Action, GrantAction
from registry.clock import rfc3339
from registry.errors import (
    ConflictError,
    InputInvalidError,
    ManifestContentMissingError,
    ManifestUnknownError,
    NameInvalidError,
    ProtectedError,
    QuotaExceededError,
    RepositoryUnknownError,
    TagInvalidError,
)
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.operations.context import OperationContext
from registry.operations.fields import (
    PAGE_SIZE,
    DigestText,
    Page,
    PageRequest,
    ReferenceText,
    RepositoryText,
    RequestModel,
    ResponseModel,
    Size,
    TagText,
    Timestamp,
    clamp,
    make_page,
    read_digest,
    read_reference,
    read_timestamp,
)
from registry.operations.operation import Operation, Permission
from registry.operations.permissions import PULLERS, REPOSITORY_ADMINS, administers
from registry.services.content import history
from registry.services.content.history import ManifestState
from registry.services.content.manifests import TagRights

Time = Annotated[datetime, Meta(tz=True)]


class CopiedTag(ResponseModel, frozen=True):
    """A tag, and the manifest that it points to now."""

    repository: str
    tag: str
    digest: str


class DeletedTag(ResponseModel, frozen=True):
    """A deleted tag, and the manifest that it pointed to, which stays."""

    repository: str
    tag: str
    digest: str


class TagChange(ResponseModel, frozen=True):
    """A change of a tag, or the deletion of the repository that the tag was in.

    `state` is the current state of the manifest that the tag pointed to after the change; null if
    it pointed to none.
    """

    at: Timestamp
    actor: str
    change: str
    digest: str | None
    old_digest: str | None
    state: ManifestState | None


class TagHistory(ResponseModel, frozen=True):
    """The changes of a tag, the newest first."""

    repository: str
    tag: str
    history: list[TagChange]


class RestoredTag(ResponseModel, frozen=True):
    """The manifest that a tag points to now.

    `manifests` is the number of manifests that were restored, including this one.
    """

    repository: str
    tag: str
    digest: str
    manifests: int


class ListTags(PageRequest, frozen=True, kw_only=True):
    """A page of the tags of a repository, by name: `n` entries after `last`."""

    repository: RepositoryText


class CopyTag(RequestModel, frozen=True):
    """The manifest to tag, by its repository and its tag or digest, and the tag to set.

    `override` moves the tag even if it is immutable.
    """

    source_repository: RepositoryText
    source_reference: ReferenceText
    repository: RepositoryText
    tag: TagText
    override: bool = False


class DeleteTag(RequestModel, frozen=True):
    """The tag to delete. `override` deletes it even if it is immutable."""

    repository: RepositoryText
    tag: TagText
    override: bool = False


class AskHistory(RequestModel, frozen=True):
    """A tag, and the number of changes to return."""

    repository: RepositoryText
    tag: TagText
    n: Annotated[
        Size, Meta(description=f"The number of changes. More than {PAGE_SIZE} means {PAGE_SIZE}.")
    ] = PAGE_SIZE


class RestoreTag(RequestModel, frozen=True):
    """The tag to restore, as it was at a time or to a manifest.

    Without `at` and `digest`, it is restored to its manifest before it was last moved or deleted.
    `override` restores it even if it is immutable.
    """

    repository: RepositoryText
    tag: TagText
    at: Time | None = None
    digest: DigestText | None = None
    override: bool = False


async def list_tags(context: OperationContext, request: ListTags) -> Page[str]:
    """List the tags of a repository."""
    name, n = RepositoryName.parse(request.repository), clamp(request.n)
    return make_page(await context.registry.tags.list_names(name, n + 1, request.last), n, str, str)


async def copy_tag(context: OperationContext, request: CopyTag) -> CopiedTag:
    """Tag a manifest, in the same repository or in another one, without copying bytes."""
    name, tag = RepositoryName.parse(request.repository), Tag.parse(request.tag)
    rights = context.rights_in(name)
    digest = await context.registry.tags.copy(
        RepositoryName.parse(request.source_repository),
        read_reference(request.source_reference),
        name,
        tag,
        context.principal,
        rights=TagRights(GrantAction.CREATE in rights, GrantAction.OVERWRITE in rights),
        override=context.actor if request.override else None,
    )
    return CopiedTag(str(name), str(tag), str(digest))


async def delete_tag(context: OperationContext, request: DeleteTag) -> DeletedTag:
    """Delete a tag, but not its manifest."""
    name, tag = RepositoryName.parse(request.repository), Tag.parse(request.tag)
    digest = await context.registry.tags.delete(
        name,
        tag,
        context.principal,
        is_admin=administers(context, request.repository),
        override=context.actor if request.override else None,
    )
    return DeletedTag(str(name), str(tag), str(digest))


async def list_tag_history(context: OperationContext, request: AskHistory) -> TagHistory:
    """List the changes of a tag, also those in deleted repositories of the same name."""
    name, tag = RepositoryName.parse(request.repository), Tag.parse(request.tag)
    moments = await context.registry.history.list_of_tag(name, tag, clamp(request.n))
    return TagHistory(str(name), str(tag), [_show(moment) for moment in moments])


def _show(moment: history.TagChange) -> TagChange:
    row = moment.change
    return TagChange(
        at=rfc3339(row.at),
        actor=row.actor,
        change=row.kind.value,
        digest=str(row.digest) if row.digest else None,
        old_digest=str(row.old_digest) if row.old_digest else None,
        state=moment.state,
    )


async def restore_tag(context: OperationContext, request: RestoreTag) -> RestoredTag:
    """Restore a tag to an earlier manifest. Deleted manifests are restored as needed."""
    name, tag = RepositoryName.parse(request.repository), Tag.parse(request.tag)
    if request.at is not None and request.digest is not None:
        raise InputInvalidError("`at` and `digest` exclude each other; send one of them")
    digest = None if request.digest is None else read_digest(request.digest)
    restored = await context.registry.history.restore(
        name,
        tag,
        context.actor,
        at=None if request.at is None else read_timestamp(request.at),
        digest=digest,
        override=request.override,
    )
    return RestoredTag(str(name), str(tag), str(restored.digest), restored.manifests)


def _may_copy(context: OperationContext, request: CopyTag) -> bool:
    source = RepositoryName.parse(request.source_repository)
    target = RepositoryName.parse(request.repository)
    return (
        context.may(Action.PULL, source)
        and context.may(Action.PUSH, target)
        and (not request.override or administers(context, request.repository))
    )


def _may_delete(context: OperationContext, request: DeleteTag) -> bool:
    return context.may(Action.DELETE, RepositoryName.parse(request.repository)) and (
        not request.override or administers(context, request.repository)
    )


_COPY = Permission(
    "callers with pull on the source and push on the target; `override` requires admin on the "
    "target",
    _may_copy,
    lambda request: (
        f"pull on {request.source_repository} and {'admin' if request.override else 'push'} on "
        f"{request.repository}"
    ),
)
_DELETE = Permission(
    "callers with delete on the repository; `override` requires admin",
    _may_delete,
    lambda request: f"{'admin' if request.override else 'delete'} on {request.repository}",
)
_NAMES = (NameInvalidError, TagInvalidError)

OPERATIONS = (
    Operation("GET", "/tags", list_tags, PULLERS, (NameInvalidError, RepositoryUnknownError)),
    Operation(
        "POST",
        "/tags/copy",
        copy_tag,
        _COPY,
        (
            *_NAMES,
            ConflictError,
            RepositoryUnknownError,
            ManifestUnknownError,
            ProtectedError,
            QuotaExceededError,
        ),
    ),
    Operation(
        "POST",
        "/tags/delete",
        delete_tag,
        _DELETE,
        (*_NAMES, ConflictError, RepositoryUnknownError, ManifestUnknownError, ProtectedError),
    ),
    Operation(
        "GET",
        "/tags/history",
        list_tag_history,
        REPOSITORY_ADMINS,
        (*_NAMES, RepositoryUnknownError),
    ),
    Operation(
        "POST",
        "/tags/restore",
        restore_tag,
        REPOSITORY_ADMINS,
        (
            *_NAMES,
            ConflictError,
            RepositoryUnknownError,
            ManifestUnknownError,
            ManifestContentMissingError,
            QuotaExceededError,
        ),
    ),
)
