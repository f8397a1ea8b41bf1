"""The referrers index, its pages and its fallback tag."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.oci.descriptors import Descriptor
from registry.oci.manifests import ManifestKind, parse_manifest
from registry.oci.media_types import OCI_INDEX, OCI_MANIFEST
from registry.oci.referrers import IndexBuilder, fallback_tag
from storage.digest import Digest

ENTRIES = st.lists(
    st.builds(
        Descriptor,
        media_type=st.just(OCI_MANIFEST),
        digest=st.builds(Digest.of, st.binary()),
        size=st.integers(min_value=0, max_value=2**63 - 1),
        artifact_type=st.none() | st.just("a/b"),
        annotations=st.none() | st.dictionaries(st.text(), st.text()),
    ),
    max_size=8,
)


def page(entries: list[Descriptor], limit: int) -> tuple[list[Descriptor], bytes]:
    """Return the entries that fit in `limit` bytes, and the index of them."""
    index = IndexBuilder(limit)
    taken = list(itertools.takewhile(index.add, entries))
    return taken, index.build()


def build_index(entries: list[Descriptor]) -> bytes:
    return page(entries, 1 << 30)[1]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_fallback_tag_has_64_hex_digits(algorithm: str) -> None:
    digest = Digest.of(b"", algorithm)
    assert str(fallback_tag(digest)) == f"{algorithm}-{digest.hex[:64]}"


def test_an_empty_index_has_a_list() -> None:
    assert json.loads(build_index([])) == {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [],
    }


@given(ENTRIES)
def test_an_index_can_be_read_back(entries: list[Descriptor]) -> None:
    index = parse_manifest(build_index(entries), OCI_INDEX)
    assert index.kind is ManifestKind.INDEX
    assert list(index.entries) == entries


def test_text_from_elsewhere_cannot_break_the_answer() -> None:
    entry = Descriptor(OCI_MANIFEST, Digest.of(b""), 1, annotations={"\ud800": "é"})
    assert json.loads(build_index([entry]))["manifests"][0]["annotations"] == {"?": "é"}


@given(ENTRIES, st.integers(min_value=0, max_value=3000))
def test_a_page_is_the_longest_prefix_that_fits(entries: list[Descriptor], limit: int) -> None:
    taken, raw = page(entries, limit)
    assert taken == entries[: len(taken)]
    assert raw == build_index(taken)
    assert len(taken) <= 1 or len(raw) < limit
    if len(taken) < len(entries):
        assert taken
        assert len(build_index(entries[: len(taken) + 1])) >= limit


def test_the_limit_itself_is_not_reached() -> None:
    entries = [Descriptor(OCI_MANIFEST, Digest.of(bytes([n])), n) for n in range(3)]
    size = len(build_index(entries))
    assert page(entries, size)[0] == entries[:2]
    assert page(entries, size + 1)[0] == entries
