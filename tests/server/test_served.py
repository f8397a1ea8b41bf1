"""The API test suite, run against a server on a port."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.servers.server import ROOT

FEWEST_HITS = 500
"""A lower bound on the reads of these tests that are answered from memory."""

PARTS = 2
"""Number of parts of the suite, so that parallel test workers share it."""

# One store is enough. The admin API has its own suite on a port. The rights of a role do not depend
# on the wire.
EXCLUDED = ("memory", "s3", "admin", "openapi", "matrix")
SQLITE = " and ".join(f"not {word}" for word in (*EXCLUDED, "postgres"))
POSTGRES = " and ".join(("postgres", *(f"not {word}" for word in EXCLUDED)))


DIFFERENTIAL = (
    "tests/api/blobs",
    "tests/api/manifests",
    "tests/api/tokens",
    *(f"tests/api/test_{name}.py" for name in ("base", "pagination", "referrers", "tags")),
)
"""Tests that do not count requests: each read is sent three times.

The client gets the first response, as in the other tests over the wire.
"""


def run_suite(mode: str, selected: str, *files: str) -> str:
    """Run the selected tests of the API over the wire, and return what pytest printed."""
    suite = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *files, "-q", "-p", "no:cacheprovider"),
            *("-k", selected),
        ],
        cwd=ROOT,
        env={**os.environ, "MOORAGE_TEST_SERVED": mode},
        capture_output=True,
        text=True,
        check=False,
    )
    assert suite.returncode == 0, suite.stdout[-20_000:]
    assert " passed" in suite.stdout
    return suite.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_api_suite_passes_over_the_wire(part: int) -> None:
    """The files of DIFFERENTIAL are left to the next test, which sends them over the wire, too."""
    every = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/api/**/test_*.py"))
    files = [
        path
        for path in every
        if not path.startswith(DIFFERENTIAL) and not any(word in path for word in EXCLUDED)
    ]
    run_suite("1", SQLITE, *files[part::PARTS])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("selected", [SQLITE, POSTGRES], ids=["sqlite", "postgres"])
def test_answers_from_memory_are_equal_to_all_others(selected: str) -> None:
    """`tests.support.servers.differential` compares each read with and without the memory."""
    printed = run_suite("differential", selected, *DIFFERENTIAL)
    hits = re.search(r"answers from memory: (\d+)", printed)
    assert hits is not None
    assert int(hits[1]) > FEWEST_HITS
