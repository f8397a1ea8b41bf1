"""The schema of manifests, limits and arbitrary input."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ManifestInvalidError, ManifestTooLargeError
from registry.oci.descriptors import Descriptor
from registry.oci.manifests import MAX_MANIFEST_BYTES, Manifest, ManifestKind, parse_manifest
from registry.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_TYPES,
    NON_DISTRIBUTABLE,
    OCI_INDEX,
    OCI_MANIFEST,
)
from storage.digest import Digest
from tests.oci.manifests.helpers import (
    CONFIG,
    EMPTY_CONFIG,
    IMAGE,
    INDEX,
    LAYER,
    Fields,
    descriptor,
    parse,
)

# The schema


@pytest.mark.parametrize("version", [None, 0, 3, "2", 2.0, True, [2]])
def test_refuses_other_schema_versions(version: object) -> None:
    with pytest.raises(ManifestInvalidError, match="schema"):
        parse({**IMAGE, "schemaVersion": version})


def test_refuses_a_missing_schema_version() -> None:
    with pytest.raises(ManifestInvalidError, match="schemaVersion must be 2"):
        parse({"config": CONFIG})


@pytest.mark.parametrize("content_type", [None, *sorted(MANIFEST_TYPES)])
@pytest.mark.parametrize("layers", [None, []])
@pytest.mark.parametrize("manifests", [None, []])
def test_refuses_layers_beside_manifests(
    layers: object, manifests: object, content_type: str | None
) -> None:
    with pytest.raises(ManifestInvalidError, match="cannot have"):
        parse({**IMAGE, "layers": layers, "manifests": manifests}, content_type)


@pytest.mark.parametrize("manifests", [None, []])
def test_an_image_cannot_have_manifests(manifests: object) -> None:
    fields = {"schemaVersion": 2, "config": CONFIG, "manifests": manifests}
    with pytest.raises(ManifestInvalidError, match="an image manifest cannot have manifests"):
        parse(fields, OCI_MANIFEST)


@pytest.mark.parametrize("config", [None, CONFIG])
def test_an_index_cannot_have_a_config(config: object) -> None:
    with pytest.raises(ManifestInvalidError, match="an index cannot have config"):
        parse({**INDEX, "config": config}, OCI_INDEX)


@pytest.mark.parametrize("content_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_refuses_an_index_announced_as_an_image(content_type: str) -> None:
    with pytest.raises(ManifestInvalidError, match="cannot have manifests"):
        parse(INDEX, content_type)


@pytest.mark.parametrize("content_type", [OCI_INDEX, DOCKER_LIST])
def test_refuses_an_image_announced_as_an_index(content_type: str) -> None:
    with pytest.raises(ManifestInvalidError, match="cannot have config"):
        parse(IMAGE, content_type)


@pytest.mark.parametrize("content_type", [None, OCI_MANIFEST])
def test_an_image_must_have_a_config(content_type: str | None) -> None:
    with pytest.raises(ManifestInvalidError, match="must have config"):
        parse({"schemaVersion": 2, "layers": []}, content_type)
    with pytest.raises(ManifestInvalidError, match="config must be an object"):
        parse({"schemaVersion": 2, "layers": [], "config": None}, content_type)


def test_an_index_must_have_manifests() -> None:
    with pytest.raises(ManifestInvalidError, match="must have manifests"):
        parse({"schemaVersion": 2}, OCI_INDEX)


@pytest.mark.parametrize("change", [{"layers": None}, {"layers": []}])
def test_layers_may_be_empty(change: Fields) -> None:
    assert parse({**IMAGE, **change}).layers == ()


def test_layers_may_be_absent() -> None:
    assert parse({"schemaVersion": 2, "config": CONFIG}).layers == ()


@pytest.mark.parametrize("content_type", [None, OCI_INDEX, DOCKER_LIST])
@pytest.mark.parametrize("manifests", [None, []])
def test_manifests_may_be_empty(manifests: object, content_type: str | None) -> None:
    manifest = parse({"schemaVersion": 2, "manifests": manifests}, content_type)
    assert (manifest.kind, manifest.entries) == (ManifestKind.INDEX, ())


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({**IMAGE, "layers": {}}, "layers must be a list"),
        ({**IMAGE, "layers": [descriptor(), None]}, r"layers\[1\] must be an object"),
        ({**IMAGE, "layers": [{**descriptor(), "size": -1}]}, r"layers\[0\]\.size"),
        ({**IMAGE, "config": {**CONFIG, "digest": "sha1:00"}}, r"config\.digest"),
        ({**IMAGE, "subject": "sha256:00"}, "subject must be an object"),
        ({**IMAGE, "subject": {}}, r"subject\.mediaType is required"),
        ({**IMAGE, "annotations": {"a": 1}}, "each value in annotations must be a string"),
        ({**IMAGE, "artifactType": 1}, "artifactType must be a string"),
        ({**INDEX, "manifests": "a"}, "manifests must be a list"),
        ({**INDEX, "manifests": [{}]}, r"manifests\[0\]\.mediaType"),
    ],
)
def test_refuses_and_names_the_place(fields: Fields, place: str) -> None:
    with pytest.raises(ManifestInvalidError, match=place):
        parse(fields)


# Content that is not validated


def test_accepts_what_is_not_judged() -> None:
    odd = {**descriptor(), "size": 0, "data": "e30=", "urls": ["http://example.com/"], "x": None}
    manifest = parse({**IMAGE, "layers": [odd], "unknown": [{"config": 1}], "Layers": []})
    assert manifest.layers[0].size == 0


def test_accepts_any_type_of_entry() -> None:
    cache = descriptor("application/vnd.buildkit.cacheconfig.v0", b"cache")
    assert parse({**INDEX, "manifests": [cache]}).entries[0].media_type == cache["mediaType"]


def test_accepts_lone_surrogates() -> None:
    raw = json.dumps({**IMAGE, "annotations": {"a": "\ud800"}, "x": "\udfff"}).encode()
    manifest = parse_manifest(raw, OCI_MANIFEST)
    assert manifest.raw == raw
    assert manifest.annotations == {"a": "\ufffd"}


def test_only_distributable_layers_must_be_present() -> None:
    foreign = [descriptor(media_type) for media_type in sorted(NON_DISTRIBUTABLE)]
    manifest = parse({**IMAGE, "layers": [*foreign, descriptor(content=b"own")]})
    assert len(manifest.layers) == 5
    assert [layer.digest for layer in manifest.distributable_layers] == [Digest.of(b"own")]


# The effective artifact type


@pytest.mark.parametrize("absent", [{}, {"artifactType": None}, {"artifactType": ""}])
def test_the_artifact_type_falls_back_to_the_config(absent: Fields) -> None:
    config = descriptor(EMPTY_CONFIG, b"{}")
    assert parse({**IMAGE, "config": config, **absent}).artifact_type == EMPTY_CONFIG
    assert parse({**INDEX, **absent}).artifact_type is None


def test_the_own_artifact_type_wins() -> None:
    assert parse({**IMAGE, "artifactType": "a/b"}).artifact_type == "a/b"
    assert parse({**INDEX, "artifactType": "a/b"}).artifact_type == "a/b"


# Limits and arbitrary input


def parse_or_refuse(fields: Fields, content_type: str | None) -> Manifest | ManifestInvalidError:
    try:
        return parse(fields, content_type)
    except ManifestInvalidError as error:
        return error


def test_the_limit_is_inclusive() -> None:
    raw = json.dumps(IMAGE).encode()
    padded = raw.ljust(MAX_MANIFEST_BYTES)
    assert parse_manifest(padded, None).raw == padded
    with pytest.raises(ManifestTooLargeError):
        parse_manifest(padded + b" ", None)


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"[]", b"[" * 100_000, b'{"schemaVersion":2,"schemaVersion":2}']
)
def test_refuses_what_is_no_document(raw: bytes) -> None:
    with pytest.raises(ManifestInvalidError):
        parse_manifest(raw, OCI_MANIFEST)


JUNK: st.SearchStrategy[object] = st.sampled_from(
    [None, True, 0, -1, 2**64, 1.5, "", "a", "\ud800", [], [None], {}]
)
DESCRIPTOR_LIKE = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.just(LAYER) | JUNK,
        "digest": st.just(str(Digest.of(b""))) | JUNK,
        "size": st.integers() | JUNK,
        "annotations": st.dictionaries(st.text(), st.text() | JUNK) | JUNK,
        "artifactType": st.just("a/b") | JUNK,
    },
)
GOOD = st.fixed_dictionaries(
    {
        "mediaType": st.sampled_from([LAYER, EMPTY_CONFIG, "a/b", *NON_DISTRIBUTABLE]),
        "digest": st.builds(Digest.of, st.binary(), st.sampled_from(["sha256", "sha512"])).map(str),
        "size": st.integers(min_value=0, max_value=2**63 - 1),
    },
    optional={"annotations": st.dictionaries(st.text(), st.text()), "x": JUNK},
)
MANIFEST_LIKE = st.fixed_dictionaries(
    {"schemaVersion": st.just(2) | JUNK},
    optional={
        "mediaType": st.sampled_from(sorted(MANIFEST_TYPES)) | JUNK,
        "config": GOOD | DESCRIPTOR_LIKE | JUNK,
        "layers": st.lists(GOOD | DESCRIPTOR_LIKE) | JUNK,
        "manifests": st.lists(GOOD | DESCRIPTOR_LIKE) | JUNK,
        "subject": GOOD | DESCRIPTOR_LIKE | JUNK,
        "annotations": st.dictionaries(st.text(), st.text()) | JUNK,
    },
)


@given(MANIFEST_LIKE, st.none() | st.sampled_from(sorted(MANIFEST_TYPES)) | st.text())
def test_anything_like_a_manifest_is_read_or_refused(
    fields: Fields, content_type: str | None
) -> None:
    manifest = parse_or_refuse(fields, content_type)
    if isinstance(manifest, ManifestInvalidError):
        assert manifest.message.encode()
        return
    assert manifest.media_type in MANIFEST_TYPES
    assert (manifest.config is not None) == (manifest.kind is ManifestKind.IMAGE)
    assert not (manifest.layers and manifest.entries)
    assert len(manifest.layers) == len(json.loads(manifest.raw).get("layers") or [])
    assert len(manifest.entries) == len(json.loads(manifest.raw).get("manifests") or [])


@given(GOOD, st.lists(GOOD), st.none() | GOOD, st.sampled_from([None, OCI_MANIFEST]))
def test_any_good_image_is_read(
    config: Fields, layers: list[Fields], subject: Fields | None, content_type: str | None
) -> None:
    fields = {"schemaVersion": 2, "config": config, "layers": layers, "subject": subject}
    manifest = parse(fields, content_type)
    assert manifest.config == Descriptor.parse(config, "")
    assert [str(layer.digest) for layer in manifest.layers] == [one["digest"] for one in layers]
    assert (manifest.subject is None) == (subject is None)


@given(st.lists(GOOD), st.none() | GOOD, st.sampled_from([None, OCI_INDEX, DOCKER_LIST]))
def test_any_good_index_is_read(
    entries: list[Fields], subject: Fields | None, content_type: str | None
) -> None:
    fields = {"schemaVersion": 2, "manifests": entries, "subject": subject}
    manifest = parse(fields, content_type)
    assert [str(entry.digest) for entry in manifest.entries] == [one["digest"] for one in entries]
    assert (manifest.subject is None) == (subject is None)
