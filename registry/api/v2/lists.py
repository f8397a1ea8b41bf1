"""Endpoints of tags, referrers (OCI distribution-spec: end-8 and 12) and the catalog."""

from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response

from registry.auth.caller import Validity
from registry.http.memory import AnswerMemory
from registry.http.request_context import RequestContext
from registry.http.warnings import write_warning
from registry.oci.media_types import OCI_INDEX
from registry.oci.names import RepositoryName
from registry.services.mirrors.lists.lists import ListedReferrers, ListedTags
from storage.digest import Digest

_PAGE = 1000


def _next_link(path: str, **query: object) -> str:
    return f'<{path}?{urlencode(query)}>; rel="next"'


async def list_tags(context: RequestContext) -> Response:
    n = context.page_size()
    if context.mirrored is not None:
        lists = context.registry.mirrored_lists
        found = await lists.list_tags(context.mirrored, n + 1, context.last)
    else:
        names = await context.registry.tags.list_names(context.name, n + 1, context.last)
        found = ListedTags(names)
    names = found.names
    headers = _list_warnings(found.problem)
    response = JSONResponse({"name": str(context.name), "tags": names[:n]}, headers=headers)
    if 0 < n < len(names):
        response.headers["Link"] = _next_link(
            f"/v2/{context.name}/tags/list", n=n, last=names[n - 1]
        )
    context.allow_reuse(validity=Validity(deadline=found.deadline))
    return response


def _list_warnings(problem: str) -> dict[str, str]:
    """Return the header for a list without what the upstream has; none without a problem."""
    return {"Warning": write_warning(f"only what is cached: {problem}")} if problem else {}


async def list_catalog(context: RequestContext) -> Response:
    n = context.page_size()
    names = await _list_visible(context, n + 1)
    response = JSONResponse({"repositories": names[:n]})
    if 0 < n < len(names):
        response.headers["Link"] = _next_link("/v2/_catalog", n=n, last=names[n - 1])
    return response


async def _list_visible(context: RequestContext, n: int) -> list[str]:
    """Return the first `n` repositories after `last` that the caller may see."""
    repositories, visible = context.registry.repositories, context.caller.visible
    if context.caller.sees_all:
        return await repositories.list_names(n, context.last, visible)
    names: list[str] = []
    last, page = context.last, max(n, _PAGE)
    while len(names) < n:
        found = await repositories.list_names(page, last, visible)
        names += [name for name in found if context.caller.may_pull(RepositoryName(name))]
        if len(found) < page:
            break
        last = found[-1]
    return names[:n]


async def list_referrers(context: RequestContext) -> Response:
    subject = Digest.parse(context.param("digest"))
    artifact_type = context.query("artifactType") or None

    async def load() -> ListedReferrers:
        wanted = (subject, artifact_type, context.last, context.received_at)
        if context.mirrored is not None:
            lists = context.registry.mirrored_lists
            return await lists.list_referrers(context.mirrored, *wanted)
        page = await context.registry.referrers.get_page(context.name, *wanted)
        return ListedReferrers(page.raw, page.last)

    # Content-Type without parameters: clients compare the exact string.
    headers = {"Content-Type": OCI_INDEX}
    query = {}
    if artifact_type is not None:
        headers["OCI-Filters-Applied"] = "artifactType"
        query["artifactType"] = artifact_type
    with AnswerMemory(context.authorizer.limits.answers) as memory:
        page = await memory.load(load)
        headers |= _list_warnings(page.problem)
        if page.last is not None:
            path = f"/v2/{context.name}/referrers/{subject}"
            headers["Link"] = _next_link(path, last=page.last, **query)
        context.allow_reuse(validity=Validity(deadline=page.deadline))
        return memory.answer(page.raw, headers)
