"""Images built by hand, because the tests cannot pull any."""

import gzip
import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.scenarios.clients.repository import OCI, digest_of

APPLETS = ("cat", "cp", "echo", "mkdir", "sh", "true")


def tar_of(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return a reproducible tar of executable files and symbolic links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()


def rootfs(busybox: Path, **files: bytes) -> bytes:
    """Return the tar of a root file system with a shell and `files` in its root."""
    return tar_of(
        {"bin/busybox": busybox.read_bytes(), **files},
        {f"bin/{applet}": "busybox" for applet in APPLETS},
    )


@dataclass
class Layout:
    """An OCI image layout: blobs by digest, and an index that names them."""

    folder: Path
    index: list[dict[str, Any]] = field(default_factory=list)

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(content)
        path = self.folder / "blobs" / digest.replace(":", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def image(self, architecture: str, layers: list[bytes]) -> dict[str, Any]:
        """Add an image of these uncompressed layers, whose manifest nothing references yet."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": self.blob(json.dumps(config).encode(), f"{OCI}.config.v1+json"),
            "layers": [
                self.blob(gzip.compress(layer, mtime=0), f"{OCI}.layer.v1.tar+gzip")
                for layer in layers
            ],
        }
        descriptor = self.blob(json.dumps(manifest).encode(), f"{OCI}.manifest.v1+json")
        return descriptor | {"platform": {"architecture": architecture, "os": "linux"}}

    def list_of(self, images: list[dict[str, Any]]) -> dict[str, Any]:
        document = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": images}
        # A registry that parses and serializes documents again would lose the indentation.
        return self.blob(json.dumps(document, indent=3).encode(), f"{OCI}.index.v1+json")

    def name(self, descriptor: dict[str, Any], tag: str) -> None:
        named = {"annotations": {"org.opencontainers.image.ref.name": tag}}
        self.index.append(descriptor | named)
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (self.folder / "index.json").write_text(
            json.dumps({"schemaVersion": 2, "manifests": self.index})
        )


def two_platforms(folder: Path, tag: str) -> Layout:
    """Return a layout with an index of an amd64 and an arm64 image that share one of two layers."""
    layout = Layout(folder)
    shared = tar_of({"shared": os.urandom(300_000)})
    images = [
        layout.image(architecture, [shared, tar_of({"own": os.urandom(20_000)})])
        for architecture in ("amd64", "arm64")
    ]
    layout.name(layout.list_of(images), tag)
    return layout
