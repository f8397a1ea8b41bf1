"""Manifest endpoints (OCI distribution-spec: end-3, 7 and 9)."""

import math
from collections.abc import Sequence
from functools import partial

from starlette.datastructures import Headers
from starlette.responses import Response

from registry.api.v2.quota_warnings import advise
from registry.auth.audit_log import Actor
from registry.auth.caller import Validity
from registry.auth.policy.actions import GrantAction
from registry.errors import (
    DeniedError,
    ManifestUnknownError,
    TagInvalidError,
    TooManyTagsError,
    UnsupportedError,
)
from registry.http.authorization import find_origin
from registry.http.body import read_body
from registry.http.caching import REVALIDATED, cache_headers
from registry.http.etags import format_date, has_current, parse_etags
from registry.http.memory import AnswerMemory
from registry.http.request_context import RequestContext
from registry.http.warnings import write_warning
from registry.oci.manifests import MAX_MANIFEST_BYTES
from registry.oci.references import Reference, Tag, parse_reference
from registry.services.content.manifests import TagCondition, TagRights
from registry.services.mirrors.manifests import ServedManifest
from storage.digest import Digest

MAX_TAGS = 100
"""The maximum number of tags that one push sets."""

MAX_TAG_LINES = 8
"""The maximum number of `OCI-Tag` header lines in a response."""

TAGS_IN_LINE = 10
"""The number of tags that always share an `OCI-Tag` line."""

OVERRIDE = "Moorage-Override"
IMMUTABLE = "immutable"


def _existing_reference(context: RequestContext) -> Reference:
    """Return the reference in the path; raise ManifestUnknownError if it cannot be a tag."""
    text = context.param("reference")
    try:
        return parse_reference(text)
    except TagInvalidError as error:
        raise ManifestUnknownError(
            f"no tag {text[:128]!a} in {context.name}", {"reference": text[:255]}
        ) from error


def _condition(headers: Headers) -> TagCondition | None:
    match, other = headers.get("if-match"), headers.get("if-none-match")
    if match is None and other is None:
        return None
    return TagCondition(
        None if match is None else parse_etags(match, weak=False),
        parse_etags(other or "", weak=True),
    )


def _tags_to_set(context: RequestContext, reference: Reference) -> list[Tag]:
    """Return the tag in the path or, with a digest, the tags in the query without duplicates."""
    asked = context.request.query_params.getlist("tag")
    if len(asked) > MAX_TAGS:
        raise TooManyTagsError(
            f"a push may set at most {MAX_TAGS} tags; set the others with further requests",
            {"limit": MAX_TAGS},
        )
    if isinstance(reference, Digest):
        return [Tag.parse(text) for text in dict.fromkeys(asked)]
    if asked:
        raise UnsupportedError("`tag` requires a digest in the path")
    return [reference]


def _override(context: RequestContext) -> Actor | None:
    """Return the caller if the request overrides immutable tags; raise DeniedError."""
    asked = context.request.headers.get(OVERRIDE)
    if asked is None:
        return None
    if asked != IMMUTABLE:
        raise UnsupportedError(f"the only value of {OVERRIDE} is {IMMUTABLE}")
    if GrantAction.ADMIN not in context.caller.rights_in(context.name):
        raise DeniedError(
            f"{OVERRIDE} requires admin on {context.name}, with the password or a personal access "
            "token; tokens of /token do not carry admin"
        )
    return Actor(context.principal.name, find_origin(context.request))


async def get_manifest(context: RequestContext) -> Response:
    reference = _existing_reference(context)
    with AnswerMemory(context.authorizer.limits.answers) as memory:
        return await _get_manifest(context, reference, memory)


async def _get_manifest(
    context: RequestContext, reference: Reference, memory: AnswerMemory
) -> Response:
    async def load() -> ServedManifest:
        registry, since = context.registry, context.received_at
        if context.mirrored is not None:
            return await registry.mirrored_manifests.get(context.mirrored, reference, since)
        if context.cached is not None:
            return await registry.mirrored_manifests.get_cached(context.cached, reference, since)
        return ServedManifest(await registry.manifests.get(context.name, reference, since))

    is_head = context.request.method == "HEAD"
    context.note_mirror_use("manifest", "miss")
    served = await (load() if is_head else memory.load(load))
    is_cached = not served.is_fetched
    context.note_mirror_use(
        "manifest", "stale" if served.problem else "hit" if is_cached else "miss"
    )
    if is_head and isinstance(reference, Digest):
        await context.registry.manifests.promise(context.name, reference)
    found = served.found
    row = found.row
    # HEAD counts as a pull: Docker sends nothing else for a tag that has not moved.
    note = partial(context.registry.pulls.note, row.id, reference)
    note()
    if not (is_head and context.registry.manifests.promises(context.name, reference)):
        context.allow_reuse(note, Validity(deadline=served.deadline))
    headers = {"Docker-Content-Digest": str(row.digest), "ETag": f'"{row.digest}"'}
    if served.problem:
        headers["Warning"] = write_warning(f"from the cache: {served.problem}")
    headers["Last-Modified"] = format_date(found.modified_at)
    headers |= cache_headers(context, REVALIDATED)
    if has_current(context.request.headers, str(row.digest), found.modified_at):
        return Response(None, 304, headers)
    headers |= {"Content-Type": row.media_type, "Content-Length": str(row.size)}
    return Response(None, 200, headers) if is_head else memory.answer(found.raw, headers)


async def put_manifest(context: RequestContext) -> Response:
    reference = parse_reference(context.param("reference"))
    set_tags = _tags_to_set(context, reference)
    idle, budget = context.settings.http.body_idle_timeout, context.authorizer.limits.bodies
    async with read_body(context.request, idle, MAX_MANIFEST_BYTES, budget) as raw:
        return await _put_manifest(context, reference, set_tags, raw)


async def _put_manifest(
    context: RequestContext, reference: Reference, set_tags: Sequence[Tag], raw: bytes
) -> Response:
    rights = context.caller.rights_in(context.name)
    pushed = await context.registry.manifests.put(
        context.name,
        raw,
        context.request.headers.get("content-type"),
        context.principal,
        digest=reference if isinstance(reference, Digest) else None,
        set_tags=set_tags,
        condition=_condition(context.request.headers),
        rights=TagRights(GrantAction.CREATE in rights, GrantAction.OVERWRITE in rights),
        override=_override(context),
    )
    response = Response(
        None,
        201,
        {
            "Location": f"/v2/{context.name}/manifests/{pushed.digest}",
            "Docker-Content-Digest": str(pushed.digest),
        },
    )
    if pushed.subject is not None:
        response.headers["OCI-Subject"] = str(pushed.subject)
    if isinstance(reference, Digest):
        # Use few lines: clients accept 100 header fields, proxies a few KiB per line.
        step = max(TAGS_IN_LINE, math.ceil(len(set_tags) / MAX_TAG_LINES))
        for start in range(0, len(set_tags), step):
            line = ", ".join(map(str, set_tags[start : start + step]))
            response.headers.append("OCI-Tag", line)
    return await advise(context, response)


async def delete_manifest(context: RequestContext) -> Response:
    await context.registry.manifests.delete(
        context.name,
        _existing_reference(context),
        context.principal,
        _condition(context.request.headers),
        _override(context),
    )
    return Response(None, 202)
