"""A `moorage worker` in a separate process."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers.launcher import Launched

PATIENCE = 100.0
"""Time limit for processes, in seconds. They need two seconds on an idle machine."""


@contextlib.contextmanager
def worker(data: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a `moorage worker`, which must exit with success unless the test ends it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
    with Launched(
        ["worker", "--data", str(data)],
        env={**kept, **environment},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            killed = process.poll() is not None
            if not killed:
                process.terminate()
            _, said = process.communicate(timeout=PATIENCE)
            assert killed or process.returncode == 0, said
