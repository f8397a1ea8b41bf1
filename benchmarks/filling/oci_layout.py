"""Tags and repositories in OCI image layouts, which zot and olareg keep on disk."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

REF_NAME = "org.opencontainers.image.ref.name"


def add_tags(data: Path, repository: str, tag: str, tags: Sequence[str]) -> None:
    """Add copies of the entry of a tag to the index of the layout."""
    path = data / repository / "index.json"
    index = json.loads(path.read_text())
    [entry] = [e for e in index["manifests"] if e.get("annotations", {}).get(REF_NAME) == tag]
    index["manifests"] += [
        {**entry, "annotations": {**entry["annotations"], REF_NAME: name}} for name in tags
    ]
    path.write_text(json.dumps(index))


def add_repositories(data: Path, repository: str, tag: str, names: Sequence[str]) -> None:
    """Create layouts with the content of one tag, as hard links."""
    source = data / repository
    index = json.loads((source / "index.json").read_text())
    index["manifests"] = [
        e for e in index["manifests"] if e.get("annotations", {}).get(REF_NAME) == tag
    ]
    text = json.dumps(index)
    blobs = sorted((source / "blobs" / "sha256").iterdir())
    for name in names:
        target = data / name
        (target / "blobs" / "sha256").mkdir(parents=True)
        (target / "index.json").write_text(text)
        os.link(source / "oci-layout", target / "oci-layout")
        for blob in blobs:
            os.link(blob, target / "blobs" / "sha256" / blob.name)
