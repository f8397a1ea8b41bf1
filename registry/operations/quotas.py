"""Quotas: limits on the bytes of blobs and manifests in the repositories of a pattern."""

from typing import Annotated

from msgspec import Meta

from registry.errors import NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import (
    Number,
    Page,
    PageRequest,
    RequestModel,
    ResponseModel,
    clamp,
    make_page,
)
from registry.operations.operation import ADMINS, Operation
from registry.services.quotas.quotas import QuotaReport

QuotaPattern = Annotated[
    str, Meta(extra_json_schema={"examples": ["team/app", "team/*", "team/**", "*/**", "**"]})
]


class Quota(ResponseModel, frozen=True):
    """A quota and its usage, in bytes.

    `used` counts distinct blobs and manifests, and `reserved` counts uploads in progress. A quota
    on each namespace (`*/**`) reports the namespace with the highest usage, as the pattern
    `most_used_namespace`; for other quotas, it is their own pattern. `usage_complete` is false
    while content from before the quota, or manifests from before an upgrade to a version that
    counts them, are not yet included.
    """

    pattern: str
    limit: int
    used: int
    reserved: int
    most_used_namespace: str
    usage_complete: bool


class SetQuota(RequestModel, frozen=True):
    """The limit in bytes for the repositories of a pattern."""

    pattern: QuotaPattern
    limit: Number


class RemoveQuota(RequestModel, frozen=True):
    """The pattern of a quota."""

    pattern: QuotaPattern


def _show(report: QuotaReport) -> Quota:
    standing = report.standing
    quota = standing.quota
    return Quota(
        quota.pattern,
        quota.bytes,
        standing.used,
        standing.reserved,
        standing.pattern,
        report.is_counted,
    )


async def list_quotas(context: OperationContext, request: PageRequest) -> Page[Quota]:
    """List quotas with their usage, by pattern."""
    n = clamp(request.n)
    reports = await context.access.quotas.list_page(n + 1, request.last)
    return make_page(reports, n, _show, lambda report: report.standing.quota.pattern)


async def set_quota(context: OperationContext, request: SetQuota) -> Quota:
    """Set a quota. Existing content is counted in the background."""
    return _show(await context.access.quotas.set(request.pattern, request.limit, context.actor))


async def delete_quota(context: OperationContext, request: RemoveQuota) -> None:
    """Delete a quota."""
    await context.access.quotas.remove(request.pattern, context.actor)


OPERATIONS = (
    Operation("GET", "/quotas", list_quotas, ADMINS),
    Operation("PUT", "/quotas", set_quota, ADMINS),
    Operation("POST", "/quotas/delete", delete_quota, ADMINS, (NotFoundError,), 204),
)
