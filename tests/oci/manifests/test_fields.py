"""Parsed fields and the media type of a manifest."""

import json

import pytest

from registry.errors import ManifestInvalidError
from registry.oci.descriptors import Descriptor
from registry.oci.manifests import Manifest, ManifestKind, parse_manifest
from registry.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
)
from tests.oci.manifests.helpers import (
    CONFIG,
    IMAGE,
    INDEX,
    Fields,
    descriptor,
    parse,
)

# Parsed fields


def test_an_image() -> None:
    subject = descriptor(OCI_MANIFEST, b"subject")
    fields = {**IMAGE, "subject": subject, "annotations": {"a": "b"}, "artifactType": "c/d"}
    raw = json.dumps(fields, indent=3).encode() + b"\n"
    assert parse_manifest(raw, OCI_MANIFEST) == Manifest(
        raw=raw,
        media_type=OCI_MANIFEST,
        kind=ManifestKind.IMAGE,
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
        kind=ManifestKind.INDEX,
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
    assert parse({**IMAGE, "mediaType": DOCKER_MANIFEST}, content_type).kind is ManifestKind.IMAGE
    docker_list = parse({**INDEX, "mediaType": DOCKER_LIST}, content_type)
    assert (docker_list.media_type, docker_list.kind) == (DOCKER_LIST, ManifestKind.INDEX)


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
