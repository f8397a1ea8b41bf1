"""The manifest rules of the HTTP contract, one test for each line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ManifestInvalidError, ManifestTooLargeError
from registry.oci.descriptors import Descriptor
from registry.oci.manifests import MAX_MANIFEST_BYTES, Kind, Manifest, parse_manifest
from registry.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_TYPES,
    NON_DISTRIBUTABLE,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
)
from storage.digest import Digest

Fields = dict[str, object]

EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def descriptor(media_type: str = LAYER, content: bytes = b"layer") -> Fields:
    digest = str(Digest.of(content))
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


CONFIG = descriptor("application/vnd.oci.image.config.v1+json", b"{}")
IMAGE: Fields = {"schemaVersion": 2, "config": CONFIG, "layers": [descriptor()]}
INDEX: Fields = {"schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST, b"child")]}


def parse(fields: object, content_type: str | None = None) -> Manifest:
    return parse_manifest(json.dumps(fields).encode(), content_type)


# Parsed fields


def test_an_image() -> None:
    subject = descriptor(OCI_MANIFEST, b"subject")
    fields = {**IMAGE, "subject": subject, "annotations": {"a": "b"}, "artifactType": "c/d"}
    raw = json.dumps(fields, indent=3).encode() + b"\n"
    assert parse_manifest(raw, OCI_MANIFEST) == Manifest(
        raw=raw,
        media_type=OCI_MANIFEST,
        kind=Kind.IMAGE,
        config=Descriptor.parse(CONFIG, ""),
        layers=(Descriptor.parse(descriptor(), ""),),
        entries=(),
        subject=Descriptor.parse(subject, ""),
        artifact_type="c/d",
        annotations={"a": "b"},
    )


def test_an_index() -> None:
    raw = json.dumps(INDEX).encode()
    assert parse_manifest(raw, OCI_INDEX) == Manifest(
        raw=raw,
        media_type=OCI_INDEX,
        kind=Kind.INDEX,
        config=None,
        layers=(),
        entries=(Descriptor.parse(descriptor(OCI_MANIFEST, b"child"), ""),),
        subject=None,
        artifact_type=None,
        annotations={},
    )


def test_an_index_has_a_subject_too() -> None:
    subject = descriptor(OCI_MANIFEST, b"subject")
    assert parse({**INDEX, "subject": subject}).subject == Descriptor.parse(subject, "")


def test_null_subject_and_annotations_are_absent() -> None:
    manifest = parse({**IMAGE, "subject": None, "annotations": None})
    assert manifest.subject is None
    assert manifest.annotations == {}


def test_can_be_a_member_of_a_set() -> None:
    assert len({parse(IMAGE), parse(IMAGE), parse(INDEX)}) == 2


def test_the_representation_leaves_the_bytes_out() -> None:
    assert "schemaVersion" not in repr(parse(IMAGE))


# The media type


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("media_type", sorted(MANIFEST_TYPES))
def test_the_announced_type_is_kept(media_type: str, own: bool) -> None:
    fields = INDEX if media_type in {OCI_INDEX, DOCKER_LIST} else IMAGE
    if own:
        fields = {**fields, "mediaType": media_type}
    assert parse(fields, media_type).media_type == media_type
    assert parse(fields, f" {media_type.upper()} ; charset=utf-8").media_type == media_type


@pytest.mark.parametrize("content_type", [None, "", " ; charset=utf-8"])
def test_without_an_announced_type_the_own_one_counts(content_type: str | None) -> None:
    assert parse({**IMAGE, "mediaType": DOCKER_MANIFEST}, content_type).kind is Kind.IMAGE
    docker_list = parse({**INDEX, "mediaType": DOCKER_LIST}, content_type)
    assert (docker_list.media_type, docker_list.kind) == (DOCKER_LIST, Kind.INDEX)


@pytest.mark.parametrize("own", [{}, {"mediaType": None}, {"mediaType": ""}])
def test_without_any_type_the_shape_counts(own: Fields) -> None:
    assert parse({**IMAGE, **own}).media_type == OCI_MANIFEST
    assert parse({**INDEX, **own}).media_type == OCI_INDEX


def test_refuses_a_type_that_contradicts_the_header() -> None:
    with pytest.raises(ManifestInvalidError, match="but mediaType is"):
        parse({**IMAGE, "mediaType": OCI_MANIFEST}, DOCKER_MANIFEST)


def test_the_own_type_is_taken_to_the_letter() -> None:
    with pytest.raises(ManifestInvalidError, match="not a supported manifest type"):
        parse({**IMAGE, "mediaType": OCI_MANIFEST.upper()}, OCI_MANIFEST)


@pytest.mark.parametrize("media_type", sorted(SCHEMA1_TYPES))
def test_refuses_schema_1_and_says_so(media_type: str) -> None:
    with pytest.raises(ManifestInvalidError, match="schema 1"):
        parse({"schemaVersion": 1, "fsLayers": []}, media_type)
    with pytest.raises(ManifestInvalidError, match="schema 1"):
        parse({"schemaVersion": 1, "mediaType": media_type})


@pytest.mark.parametrize("content_type", [None, OCI_MANIFEST])
def test_refuses_schema_1_by_its_version(content_type: str | None) -> None:
    with pytest.raises(ManifestInvalidError, match="schema 1"):
        parse({"schemaVersion": 1, "name": "a", "fsLayers": []}, content_type)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.artifact.manifest.v1+json",
        "application/json",
        "text/plain",
        f"{OCI_MANIFEST}, {OCI_INDEX}",
        "é" * 200_000,
    ],
)
def test_refuses_an_unknown_announced_type(media_type: str) -> None:
    with pytest.raises(ManifestInvalidError, match="not a supported manifest type") as caught:
        parse(IMAGE, media_type)
    assert caught.value.message.isascii()
    assert len(caught.value.message) < 2000
    assert OCI_MANIFEST in caught.value.detail["supported"]


@pytest.mark.parametrize("content_type", [None, OCI_MANIFEST])
def test_refuses_an_unknown_own_type(content_type: str | None) -> None:
    with pytest.raises(ManifestInvalidError, match="not a supported manifest type"):
        parse({**IMAGE, "mediaType": "application/vnd.oci.artifact.manifest.v1+json"}, content_type)
    with pytest.raises(ManifestInvalidError, match="mediaType must be a string"):
        parse({**IMAGE, "mediaType": 2}, content_type)


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
    assert (manifest.kind, manifest.entries) == (Kind.INDEX, ())


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
    assert (manifest.config is not None) == (manifest.kind is Kind.IMAGE)
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
