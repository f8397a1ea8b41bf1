"""A real `moorage worker` in a process of its own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.server import ROOT

PATIENCE = 40.0
"""Seconds to wait for processes; on a quiet machine they need two."""


@contextlib.contextmanager
def worker(data: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A `moorage worker`, which must end well unless the test ends it otherwise."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
    with subprocess.Popen(
        [sys.executable, "-m", "registry.cli.main", "worker", "--data", str(data)],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
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
