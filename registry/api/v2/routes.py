"""The route table: the methods of each path, and the action that each method requires.

`{name}` is greedy, and nothing after it contains a slash. So the rightmost `/blobs/`,
`/manifests/`, `/tags/list` or `/referrers/` splits a path.
"""

from registry.api.v2 import base, blobs, lists, manifests, uploads
from registry.auth.policy.actions import Action
from registry.http.request_context import Entry

ROUTES = (
    Entry("/v2/", dict.fromkeys(("GET", "HEAD"), (Action.SIGN_IN, base.get_base))),
    Entry("/v2/_catalog", {"GET": (Action.CATALOG, lists.list_catalog)}),
    Entry("/v2/{name:path}/blobs/uploads/", {"POST": (Action.PUSH, uploads.start_upload)}),
    Entry(
        "/v2/{name:path}/blobs/uploads/{upload}",
        {
            "GET": (Action.PUSH, uploads.get_upload),
            "PATCH": (Action.PUSH, uploads.append_upload),
            "PUT": (Action.PUSH, uploads.complete_upload),
            "DELETE": (Action.PUSH, uploads.cancel_upload),
        },
    ),
    Entry(
        "/v2/{name:path}/blobs/{digest}",
        {
            "GET": (Action.PULL, blobs.get_blob),
            "HEAD": (Action.PULL, blobs.get_blob),
            "DELETE": (Action.DELETE, blobs.delete_blob),
        },
    ),
    Entry(
        "/v2/{name:path}/manifests/{reference}",
        {
            "GET": (Action.PULL, manifests.get_manifest),
            "HEAD": (Action.PULL, manifests.get_manifest),
            "PUT": (Action.PUSH, manifests.put_manifest),
            "DELETE": (Action.DELETE, manifests.delete_manifest),
        },
    ),
    Entry("/v2/{name:path}/tags/list", {"GET": (Action.PULL, lists.list_tags)}),
    Entry("/v2/{name:path}/referrers/{digest}", {"GET": (Action.PULL, lists.list_referrers)}),
)
