"""Registries with token servers, which record what they are sent."""

import base64

from registry.client.credentials import from_settings
from registry.client.upstream import Upstream
from registry.oci.media_types import OCI_MANIFEST
from storage.digest import Digest
from tests.client.conftest import REPOSITORY, TAG
from tests.support.servers.upstream import Reply
from tests.support.servers.upstream import Upstream as Server

PASSWORD = "secret-word"  # noqa: S105 - of a test
SIGNED_IN = from_settings("ann", PASSWORD)
BASIC = f"Basic {base64.b64encode(f'ann:{PASSWORD}'.encode()).decode()}"
SCOPE = f"repository:{REPOSITORY}:pull"
BLOB = b"a layer"
DIGEST = Digest.of(BLOB)
PATH = f"/v2/{REPOSITORY}/manifests/{TAG}"
BLOB_PATH = f"/v2/{REPOSITORY}/blobs/{DIGEST}"
MANIFEST = Reply(b"{}", 200, {"content-type": OCI_MANIFEST})


class TokenServer:
    """The replies of a registry and its token server, which count tokens."""

    def __init__(self, registry: Server, tokens: Server, host: str = "127.0.0.1") -> None:
        self.registry = registry
        self.tokens = tokens
        self.realm = tokens.url("/token", host)
        registry.replies[PATH] = self.challenge()

    def challenge(self, **more: str) -> Reply:
        asked = {"realm": self.realm, "service": "s", **more}
        value = ",".join(f'{name}="{text}"' for name, text in asked.items() if text)
        return Reply(b"", 401, {"www-authenticate": f"Bearer {value}"})

    def issue(self, **made: object) -> None:
        self.tokens.put("/token", {"token": "made", **made})


def accept_tokens(server: Server, *tokens: str) -> None:
    """Let the server answer with the manifest if a request has one of the tokens."""
    refused = server.replies[PATH]

    class Guarded(dict[str, Reply]):
        def get(self, key: str, default: Reply | None = None) -> Reply:  # type: ignore[override]
            _, headers = server.requests[-1]
            is_good = headers.get("authorization") in {f"Bearer {each}" for each in tokens}
            if key == PATH:
                return MANIFEST if is_good else refused
            return dict.get(self, key, default) or Reply(b"no", 404)

    server.replies = Guarded(server.replies)


def sent(server: Server) -> list[tuple[str, str]]:
    return [(path, headers.get("authorization", "")) for path, headers in server.requests]


async def pull(upstream: Upstream) -> None:
    await upstream.get_manifest(REPOSITORY, TAG)
