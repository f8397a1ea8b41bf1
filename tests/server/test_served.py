"""The API test suite, run against a server on a port."""

import os
import subprocess
import sys

import pytest

from tests.support.servers.server import ROOT

PARTS = 4
"""Number of parts of the suite, so that parallel test workers share it."""

# One database and one store are enough. The admin API has its own suite on a port. The rights of a
# role do not depend on the wire.
EXCLUDED = " and ".join(
    f"not {word}" for word in ("postgres", "memory", "s3", "admin", "openapi", "matrix")
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_api_suite_passes_over_the_wire(part: int) -> None:
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/api/**/test_*.py"))
    suite = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *files[part::PARTS], "-q", "-p", "no:cacheprovider"),
            *("-k", EXCLUDED),
        ],
        cwd=ROOT,
        env={**os.environ, "MOORAGE_TEST_SERVED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert suite.returncode == 0, suite.stdout[-20_000:]
    assert " passed" in suite.stdout
