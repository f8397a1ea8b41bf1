"""The OpenAPI document of the admin API changes only together with its committed snapshot."""

import difflib

from tests.support.openapi_snapshot import COMMAND, SNAPSHOT, render


def test_document_equals_the_committed_snapshot() -> None:
    expected = SNAPSHOT.read_text(encoding="utf-8")
    actual = render()
    difference = "".join(
        difflib.unified_diff(
            expected.splitlines(keepends=True), actual.splitlines(keepends=True), "snapshot", "code"
        )
    )
    assert actual == expected, (
        f"the admin API differs from its snapshot:\n{difference}\n"
        f"If the change is intended, run: {COMMAND}"
    )
