"""Descriptors: required fields, fields that are not validated, and conversion back to JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ManifestInvalidError
from registry.oci.descriptors import Descriptor
from storage.digest import Digest

DIGEST = Digest.of(b"content")
FIELDS: dict[str, object] = {"mediaType": "a/b", "digest": str(DIGEST), "size": 7}

DESCRIPTORS = st.builds(
    Descriptor,
    media_type=st.text(alphabet="abc/.+é", min_size=1),
    digest=st.builds(Digest.of, st.binary(), st.sampled_from(["sha256", "sha512"])),
    size=st.integers(min_value=0, max_value=2**63 - 1),
    artifact_type=st.none() | st.text(alphabet="abc/.+é", min_size=1),
    annotations=st.none() | st.dictionaries(st.text(), st.text()),
)


@given(DESCRIPTORS)
def test_json_and_back(descriptor: Descriptor) -> None:
    value = json.loads(json.dumps(descriptor.as_json()))
    assert Descriptor.parse(value, "layers[0]") == descriptor


def test_as_json_leaves_out_what_is_absent() -> None:
    value = Descriptor.parse(FIELDS, "config").as_json()
    assert list(value) == ["mediaType", "size", "digest"]


def test_as_json_ends_with_annotations_and_artifact_type() -> None:
    fields = {"artifactType": "c/d", "annotations": {}, **FIELDS}
    value = Descriptor.parse(fields, "config").as_json()
    assert list(value) == ["mediaType", "size", "digest", "annotations", "artifactType"]


def test_null_and_empty_optional_fields_are_absent() -> None:
    plain = Descriptor.parse(FIELDS, "config")
    assert Descriptor.parse({**FIELDS, "artifactType": None, "annotations": None}, "c") == plain
    assert Descriptor.parse({**FIELDS, "artifactType": ""}, "c") == plain


def test_other_fields_are_left_alone() -> None:
    fields = {**FIELDS, "data": 5, "urls": "no list", "platform": None, "x": [{}]}
    assert Descriptor.parse(fields, "config") == Descriptor.parse(FIELDS, "config")


def test_can_be_a_member_of_a_set() -> None:
    one = Descriptor.parse({**FIELDS, "annotations": {"a": "b"}}, "config")
    assert one in {one, Descriptor.parse(FIELDS, "config")}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"mediaType": None}, r"mediaType is required"),
        ({"mediaType": ""}, r"mediaType is required"),
        ({"mediaType": 1}, r"mediaType must be a string"),
        ({"digest": None}, r"digest must be a string"),
        ({"digest": ["sha256"]}, r"digest must be a string"),
        ({"digest": ""}, r"digest: a digest must start with"),
        ({"digest": "md5:" + "0" * 32}, r"digest: a digest must start with"),
        ({"digest": "sha256:" + "A" * 64}, r"digest: a sha256 digest must have 64"),
        ({"digest": "sha256:\ud800"}, r"digest: a sha256 digest must have 64"),
        ({"size": None}, r"size must be"),
        ({"size": -1}, r"size must be"),
        ({"size": True}, r"size must be"),
        ({"size": 1.0}, r"size must be"),
        ({"size": "1"}, r"size must be"),
        ({"size": 2**63}, r"size must be"),
        ({"artifactType": {}}, r"artifactType must be a string"),
        ({"annotations": {"a": 1}}, r"annotations must be a string"),
    ],
)
def test_refuses_and_names_the_place(change: dict[str, object], place: str) -> None:
    with pytest.raises(ManifestInvalidError, match=rf"layers\[3\]\.{place}"):
        Descriptor.parse({**FIELDS, **change}, "layers[3]")


@pytest.mark.parametrize("missing", ["mediaType", "digest", "size"])
def test_refuses_without_a_required_field(missing: str) -> None:
    fields = {key: value for key, value in FIELDS.items() if key != missing}
    with pytest.raises(ManifestInvalidError, match=rf"config\.{missing}"):
        Descriptor.parse(fields, "config")


@pytest.mark.parametrize("value", [None, [], "sha256:", 1])
def test_refuses_what_is_no_object(value: object) -> None:
    with pytest.raises(ManifestInvalidError, match="config must be an object"):
        Descriptor.parse(value, "config")
