"""Cache headers. Source: RFC 9111.

Content that requires a permission is `private`: a shared cache would serve it to everybody.
Everything else under `/v2/` is `no-store`, which `registry.http.request_log` adds.
"""

from registry.http.request_context import RequestContext

FOREVER = "max-age=31536000, immutable"
"""For content that is addressed by its digest. Source: RFC 8246."""

REVALIDATED = "no-cache"
"""For content that may change at any time: it may be cached, but must be revalidated by ETag."""


def cache_headers(context: RequestContext, rule: str) -> dict[str, str]:
    """Return `Cache-Control` for content of a repository, and `Vary` if access is limited."""
    if context.caller.is_pulled_by_anybody(context.name):
        return {"Cache-Control": f"public, {rule}"}
    return {"Cache-Control": f"private, {rule}", "Vary": "Authorization"}
