"""How long answers may be kept, and by whom. Source: RFC 9111.

What needs a right is `private`: a shared cache in front would hand it to anybody. Everything else
under `/v2/` is `no-store`, which `registry.api.observe` adds.
"""

from registry.api.call import Call

FOREVER = "max-age=31536000, immutable"
"""For content that its digest names. Source: RFC 8246."""

REVALIDATED = "no-cache"
"""For what may move or go at any time: kept, but asked for again with its ETag."""


def cache_headers(call: Call, rule: str) -> dict[str, str]:
    """`Cache-Control` for content of the repository, and `Vary` where a right was asked for."""
    if call.caller.is_pulled_by_anybody(call.name):
        return {"Cache-Control": f"public, {rule}"}
    return {"Cache-Control": f"private, {rule}", "Vary": "Authorization"}
