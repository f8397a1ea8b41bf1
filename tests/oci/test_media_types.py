"""Classification of media types, and the bare type of a header."""

import pytest

from registry.oci.media_types import (
    IMAGE_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
    normalize,
)


@pytest.mark.parametrize(
    "header",
    [
        OCI_INDEX,
        f" {OCI_INDEX.upper()}\t",
        f"{OCI_INDEX};charset=utf-8",
        f'{OCI_INDEX} ; a="b;c" ; d',
    ],
)
def test_normalize_keeps_the_bare_type(header: str) -> None:
    assert normalize(header) == OCI_INDEX


@pytest.mark.parametrize("header", ["", " ", ";", "; charset=utf-8"])
def test_normalize_of_no_type_is_empty(header: str) -> None:
    assert normalize(header) == ""


def test_two_types_in_one_header_are_none_that_is_known() -> None:
    assert normalize(f"{OCI_MANIFEST}, {OCI_INDEX}") not in MANIFEST_TYPES


def test_the_sets_do_not_overlap() -> None:
    assert not IMAGE_TYPES & INDEX_TYPES
    assert not MANIFEST_TYPES & SCHEMA1_TYPES
    assert all(normalize(media_type) == media_type for media_type in MANIFEST_TYPES)
