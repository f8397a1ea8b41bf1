"""Test of how often a server runs the garbage collector of Python."""

import subprocess
import sys


def test_the_collector_runs_less_often_and_skips_what_exists() -> None:
    code = (
        "import gc; from registry.cli.server.serve import collect_less_often\n"
        "before = gc.get_threshold(); collect_less_often(); after = gc.get_threshold()\n"
        "print(after[0] > before[0], after[1:] == before[1:], gc.get_freeze_count() > 1000)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "True", "True"]
