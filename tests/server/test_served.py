"""The API suite once more, against a real server on a real port."""

import os
import subprocess
import sys

import pytest

from tests.support.server import ROOT


@pytest.mark.timeout(600)
def test_the_api_suite_passes_over_the_wire() -> None:
    suite = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "tests/api", "-q", "-p", "no:cacheprovider"),
            # The admin API has a suite of its own on a real port; what is behind it is no matter.
            *("-k", "not postgres and not memory and not s3 and not admin and not openapi"),
        ],
        cwd=ROOT,
        env={**os.environ, "MOORAGE_TEST_SERVED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert suite.returncode == 0, suite.stdout[-20_000:]
    assert " passed" in suite.stdout
