"""Content that the model test pushes: tiny blobs, and manifests that name them and each other."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.oci.media_types import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.support.kit import CONFIG, LAYER

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
SIGNATURE = "application/x.signature"

Json = dict[str, Any]


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def _named(data: bytes, media_type: str, algorithm: str = "sha256", **more: Any) -> Json:
    digest = digest_of(data, algorithm)
    return {"mediaType": media_type, "digest": digest, "size": len(data), **more}


@dataclass(frozen=True)
class Document:
    """A manifest as bytes, with its possible media types."""

    label: str
    raw: bytes
    media_types: tuple[str, ...]
    """Types that the manifest may have. The first applies without a Content-Type."""

    @property
    def fields(self) -> Json:
        return dict(json.loads(self.raw))

    def __repr__(self) -> str:
        return self.label

    def __deepcopy__(self, memo: object) -> "Document":
        return self


@dataclass(frozen=True)
class Named:
    """The digests that a document names."""

    parts: frozenset[tuple[str, str]]
    """Blobs: kind (`config` or `layer`) and digest."""
    required: frozenset[str]
    entries: tuple[Json, ...]
    subject: str | None
    artifact_type: str | None
    annotations: Mapping[str, str]


def _read(document: Document) -> Named:
    fields = document.fields
    layers = fields.get("layers") or []
    config = fields.get("config")
    parts = {("layer", layer["digest"]) for layer in layers}
    needed = {layer["digest"] for layer in layers if layer["mediaType"] != FOREIGN}
    if config:
        parts.add(("config", config["digest"]))
        needed.add(config["digest"])
    entries = tuple(fields.get("manifests") or [])
    needed |= {entry["digest"] for entry in entries}
    return Named(
        frozenset(parts),
        frozenset(needed),
        entries,
        (fields.get("subject") or {}).get("digest"),
        fields.get("artifactType") or (config or {}).get("mediaType"),
        fields.get("annotations") or {},
    )


def _document(label: str, *media_types: str, **fields: Any) -> Document:
    body = {"schemaVersion": 2, **fields}
    if len(media_types) == 1:
        body["mediaType"] = media_types[0]
    return Document(label, json.dumps(body).encode(), media_types)


def _image(label: str, layers: list[Json], config: Json, *types: str, **more: Any) -> Document:
    types = types or (OCI_MANIFEST,)
    return _document(label, *types, config=config, layers=layers, **more)


def _index(label: str, entries: list[Json], **more: Any) -> Document:
    return _document(label, OCI_INDEX, manifests=entries, **more)


def _entry(document: Document, algorithm: str = "sha256", **more: Any) -> Json:
    return _named(document.raw, document.media_types[0], algorithm, **more)


ONE, TWO, BIG, NOTHING, SETTINGS = b"one", b"two", b"big " * 10, b"", b'{"os":"linux"}'
_config = _named(SETTINGS, CONFIG)

PLAIN = _image("plain", [_named(ONE, LAYER)], _config)
WIDE = _image("wide", [_named(ONE, LAYER), _named(TWO, LAYER)], _config)
# The type is in the header only, not in the body. The document is also pushed as a blob.
BARE = _image("bare", [], _named(b"{}", EMPTY), OCI_MANIFEST, DOCKER_MANIFEST)
FOREIGNER = _image("foreigner", [_named(ONE, LAYER), _named(TWO, FOREIGN)], _config)
LONG = _image("long", [_named(BIG, LAYER, "sha512")], _named(NOTHING, CONFIG))
SIGNED = _image(
    "signature",
    [_named(TWO, LAYER)],
    _named(b"{}", EMPTY),
    subject=_entry(PLAIN),
    artifactType=SIGNATURE,
    annotations={"by": "Åsa"},
)
SBOM = _image("sbom", [_named(BIG, LAYER)], _named(b"{}", EMPTY), subject=_entry(PLAIN))
# One blob is both config and layer, as in artifacts made by oras.
ABSENT = _image(
    "of nothing",
    [_named(b"{}", EMPTY)],
    _named(b"{}", EMPTY),
    subject=_named(b"never pushed", OCI_MANIFEST),
)
INDEX = _index("index", [_entry(PLAIN), _entry(WIDE)])
NESTED = _index("nested", [_entry(INDEX)], annotations={"level": "2"})
CACHE = _index("cache", [_named(TWO, LAYER), _named(BIG, LAYER)])
MIXED = _index("mixed", [_entry(BARE), _entry(PLAIN)])
VOID = _index("void", [])
INDEX_SIGNED = _index("of the index", [], subject=_entry(INDEX))
LONG_SIGNED = _index("of long", [], subject=_entry(LONG, "sha512"), artifactType=SIGNATURE)
# Indexes that clients without the referrers API keep under a fallback tag.
FALLBACK = _index("fallback", [_entry(SIGNED), _entry(WIDE, artifactType=SIGNATURE)])
FALLBACK_BARE = _index("fallback of bare", [_entry(BARE, annotations={"a": "b"})])

DOCUMENTS = (
    *(PLAIN, WIDE, BARE, FOREIGNER, LONG, SIGNED, SBOM, ABSENT, INDEX, NESTED, CACHE, MIXED),
    *(VOID, INDEX_SIGNED, LONG_SIGNED, FALLBACK, FALLBACK_BARE),
)
NAMED = {document.label: _read(document) for document in DOCUMENTS}
BLOBS = (ONE, TWO, BIG, NOTHING, SETTINGS, b"{}", BARE.raw)


def fallback_tag(digest: str) -> str:
    return digest.replace(":", "-")[: len("sha256-") + 64]


REPOSITORIES = ("a-b", "a/b")  # "-" sorts before "/" by bytes, and after it in some locales
PLAIN_TAGS = ("latest", "V1", "v1", "_x")
FALLBACK_TAGS = (fallback_tag(digest_of(PLAIN.raw)), fallback_tag(digest_of(LONG.raw, "sha512")))
TAGS = (*PLAIN_TAGS, *FALLBACK_TAGS)
SUBJECTS = (
    *(digest_of(document.raw) for document in (PLAIN, INDEX, WIDE)),
    digest_of(LONG.raw, "sha512"),
    digest_of(b"never pushed"),
)
DOCUMENT_OF = {digest_of(document.raw): document for document in DOCUMENTS} | {
    digest_of(document.raw, "sha512"): document for document in (PLAIN, LONG)
}
BYTES_OF = {digest_of(data): data for data in BLOBS} | {
    digest_of(data, "sha512"): data for data in (BIG, NOTHING)
}
