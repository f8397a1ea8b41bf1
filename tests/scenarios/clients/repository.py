"""The server's view of a repository, to compare with what a client reports."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

import httpx

DOCKER = "application/vnd.docker.distribution.manifest"
OCI = "application/vnd.oci.image"
# The keys are the format names of podman, buildah and skopeo.
MANIFESTS = {"v2s2": f"{DOCKER}.v2+json", "oci": f"{OCI}.manifest.v1+json"}
INDEXES = {"v2s2": f"{DOCKER}.list.v2+json", "oci": f"{OCI}.index.v1+json"}


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Manifest:
    """A manifest or index as the registry delivers it."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return digest_of(self.content)

    @property
    def document(self) -> Any:
        return json.loads(self.content)

    @property
    def config(self) -> str:
        """Digest of the config, which is also the image ID."""
        digest: str = self.document["config"]["digest"]
        return digest

    @property
    def layers(self) -> list[str]:
        return [layer["digest"] for layer in self.document["layers"]]


@dataclass(frozen=True)
class Repository:
    """A repository of the running server, read through its API."""

    host: str
    path: str
    client: httpx.Client

    @property
    def name(self) -> str:
        """The full name that clients use."""
        return f"{self.host}/{self.path}"

    def below(self, name: str) -> "Repository":
        return replace(self, path=f"{self.path}/{name}")

    def tags(self) -> list[str]:
        return self._pages(f"/v2/{self.path}/tags/list", "tags")

    def catalog(self) -> list[str]:
        """List the repositories whose path starts with the path of this one."""
        found = self._pages("/v2/_catalog", "repositories")
        return [path for path in found if path.startswith(self.path)]

    def manifest(self, reference: str) -> Manifest:
        accept = {"Accept": ", ".join([*MANIFESTS.values(), *INDEXES.values()])}
        answer = self.client.get(f"/v2/{self.path}/manifests/{reference}", headers=accept)
        assert answer.status_code == httpx.codes.OK, answer.text
        manifest = Manifest(answer.content, answer.headers["Content-Type"])
        assert answer.headers["Docker-Content-Digest"] == manifest.digest
        return manifest

    def blob(self, digest: str) -> bytes:
        answer = self.client.get(f"/v2/{self.path}/blobs/{digest}")
        assert answer.status_code == httpx.codes.OK, answer.text
        assert digest_of(answer.content) == digest
        return answer.content

    def delete(self, digest: str) -> None:
        answer = self.client.delete(f"/v2/{self.path}/manifests/{digest}")
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text

    def _pages(self, path: str, key: str) -> list[str]:
        found: list[str] = []
        while path:
            answer = self.client.get(path)
            assert answer.status_code == httpx.codes.OK, answer.text
            found += answer.json()[key] or []
            link = answer.links.get("next")
            path = urljoin(path, link["url"]) if link else ""
        return found
