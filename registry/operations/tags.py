"""The history of tags, and restoring tags from it."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from registry.clock import rfc3339
from registry.errors import (
    ConflictError,
    InputInvalidError,
    ManifestContentMissingError,
    ManifestUnknownError,
    NameInvalidError,
    QuotaExceededError,
    RepositoryUnknownError,
    TagInvalidError,
)
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.operations.context import OperationContext
from registry.operations.fields import (
    PAGE,
    RequestModel,
    ResponseModel,
    Size,
    Timestamp,
    clamp,
    read_timestamp,
)
from registry.operations.gc import DigestText
from registry.operations.grants import REPOSITORY_ADMINS
from registry.operations.operation import Operation
from registry.services.content import history
from registry.services.content.history import ManifestState
from storage.digest import Digest, DigestInvalidError

Repository = Annotated[str, Meta(extra_json_schema={"examples": ["team/app"]})]
TagText = Annotated[str, Meta(extra_json_schema={"examples": ["latest"]})]
Time = Annotated[datetime, Meta(tz=True)]


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


class AskHistory(RequestModel, frozen=True):
    """A tag, and the number of changes to return."""

    repository: Repository
    tag: TagText
    n: Annotated[
        Size, Meta(description=f"The number of changes. More than {PAGE} means {PAGE}.")
    ] = PAGE


class RestoreTag(RequestModel, frozen=True):
    """The tag to restore, as it was at a time or to a manifest.

    Without `at` and `digest`, it is restored to its manifest before it was last moved or deleted.
    `override` restores it even if it is immutable.
    """

    repository: Repository
    tag: TagText
    at: Time | None = None
    digest: DigestText | None = None
    override: bool = False


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
    try:
        digest = None if request.digest is None else Digest.parse(request.digest)
    except DigestInvalidError as error:
        raise InputInvalidError(str(error)) from error
    restored = await context.registry.history.restore(
        name,
        tag,
        context.actor,
        at=None if request.at is None else read_timestamp(request.at),
        digest=digest,
        override=request.override,
    )
    return RestoredTag(str(name), str(tag), str(restored.digest), restored.manifests)


_NAMES = (NameInvalidError, TagInvalidError)

OPERATIONS = (
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
