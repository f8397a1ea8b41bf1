"""Images: deletion with everything that belongs to them."""

from registry.clock import rfc3339
from registry.errors import (
    ConflictError,
    ManifestInUseError,
    ManifestUnknownError,
    NameInvalidError,
    ProtectedError,
    RepositoryUnknownError,
    TagInvalidError,
)
from registry.oci.names import RepositoryName
from registry.operations.context import OperationContext
from registry.operations.fields import (
    ReferenceText,
    RepositoryText,
    RequestModel,
    ResponseModel,
    Timestamp,
    read_reference,
)
from registry.operations.operation import Operation
from registry.operations.permissions import REPOSITORY_ADMINS


class DeletedImage(ResponseModel, frozen=True):
    """The tags and manifests that were deleted, or would be.

    `bytes` are freed after `free_at`, unless their content is used again before then.
    """

    repository: str
    digest: str
    tags: list[str]
    manifests: list[str]
    bytes: int
    free_at: Timestamp


class DeleteImage(RequestModel, frozen=True):
    """The image, by tag or digest.

    `all_tags` deletes it even if it has other tags. `override` deletes it even if a tag is
    immutable. `dry_run` only returns what would be deleted.
    """

    repository: RepositoryText
    reference: ReferenceText
    all_tags: bool = False
    override: bool = False
    dry_run: bool = False


async def delete_image(context: OperationContext, request: DeleteImage) -> DeletedImage:
    """Delete an image with its tags, and the manifests that belong only to it."""
    name = RepositoryName.parse(request.repository)
    found = await context.registry.images.delete(
        name,
        read_reference(request.reference),
        context.actor,
        all_tags=request.all_tags,
        override=request.override,
        dry_run=request.dry_run,
    )
    return DeletedImage(
        repository=str(name),
        digest=str(found.digest),
        tags=found.tags,
        manifests=[str(digest) for digest in found.manifests],
        bytes=found.bytes,
        free_at=rfc3339(found.free_at),
    )


OPERATIONS = (
    Operation(
        "POST",
        "/images/delete",
        delete_image,
        REPOSITORY_ADMINS,
        (
            ConflictError,
            ManifestInUseError,
            ManifestUnknownError,
            NameInvalidError,
            ProtectedError,
            RepositoryUnknownError,
            TagInvalidError,
        ),
    ),
)
