"""Quotas: how many bytes of blobs and manifests the repositories of a pattern may have."""

from typing import Annotated

from msgspec import Meta

from registry.api.admin.call import Call
from registry.api.admin.fields import Asked, Number, Page, PageAsked, Shown, clamp, make_page
from registry.api.admin.operation import ADMINS, Operation
from registry.errors import NotFoundError
from registry.services.quotas import QuotaReport

QuotaPattern = Annotated[
    str, Meta(extra_json_schema={"examples": ["team/app", "team/*", "team/**", "*/**", "**"]})
]


class Quota(Shown, frozen=True):
    """A quota, and how full it is. All in bytes.

    `used` by distinct blobs and by manifests, `reserved` by uploads that are under way, both of the
    repositories of `fullest`: of a quota for each namespace, where most is used. `counted`: whether
    all that was there before the quota, and all manifests that were there before an upgrade to a
    version that counts them, are in these numbers.
    """

    pattern: str
    limit: int
    used: int
    reserved: int
    fullest: str
    counted: bool


class SetQuota(Asked, frozen=True):
    """How many bytes the repositories of a pattern may have."""

    pattern: QuotaPattern
    limit: Number


class RemoveQuota(Asked, frozen=True):
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


async def list_quotas(call: Call, asked: PageAsked) -> Page[Quota]:
    """List quotas and how full they are, by pattern."""
    n = clamp(asked.n)
    reports = await call.access.quotas.list_page(n + 1, asked.last)
    return make_page(reports, n, _show, lambda report: report.standing.quota.pattern)


async def set_quota(call: Call, asked: SetQuota) -> Quota:
    """Set a quota. What is there already is counted in the background."""
    return _show(await call.access.quotas.set(asked.pattern, asked.limit, call.actor))


async def remove_quota(call: Call, asked: RemoveQuota) -> None:
    """Remove a quota."""
    await call.access.quotas.remove(asked.pattern, call.actor)


OPERATIONS = (
    Operation("GET", "/quotas", list_quotas, ADMINS),
    Operation("PUT", "/quotas", set_quota, ADMINS),
    Operation("POST", "/quotas/remove", remove_quota, ADMINS, (NotFoundError,), 204),
)
