"""The registry's API, to compare what a client says with what is there."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpx

DOCKER = "application/vnd.docker.distribution.manifest"
OCI = "application/vnd.oci.image"
MANIFESTS = [f"{DOCKER}.v2+json", f"{OCI}.manifest.v1+json"]
INDEXES = [f"{DOCKER}.list.v2+json", f"{OCI}.index.v1+json"]


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
        """The config's digest, which is the image's ID too."""
        digest: str = self.document["config"]["digest"]
        return digest

    @property
    def layers(self) -> list[str]:
        return [layer["digest"] for layer in self.document["layers"]]


class Api:
    """What the tests ask of a registry themselves."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def tags(self, repository: str) -> list[str]:
        return self._pages(f"/v2/{repository}/tags/list", "tags")

    def repositories(self) -> list[str]:
        return self._pages("/v2/_catalog", "repositories")

    def manifest(self, repository: str, reference: str) -> Manifest:
        accept = {"Accept": ", ".join([*MANIFESTS, *INDEXES])}
        answer = self._client.get(f"/v2/{repository}/manifests/{reference}", headers=accept)
        assert answer.status_code == httpx.codes.OK, answer.text
        manifest = Manifest(answer.content, answer.headers["Content-Type"])
        assert answer.headers["Docker-Content-Digest"] == manifest.digest
        return manifest

    def blob(self, repository: str, digest: str) -> bytes:
        answer = self._client.get(f"/v2/{repository}/blobs/{digest}")
        assert answer.status_code == httpx.codes.OK, answer.text
        assert digest_of(answer.content) == digest
        return answer.content

    def delete(self, repository: str, digest: str) -> None:
        answer = self._client.delete(f"/v2/{repository}/manifests/{digest}")
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text

    def _pages(self, path: str, key: str) -> list[str]:
        found: list[str] = []
        while path:
            answer = self._client.get(path)
            assert answer.status_code == httpx.codes.OK, answer.text
            found += answer.json()[key] or []
            link = answer.links.get("next")
            path = urljoin(path, link["url"]) if link else ""
        return found
