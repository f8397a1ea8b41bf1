"""A signal stops the server and its workers, in whatever moment of their start it arrives."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers.server import ROOT

pytestmark = pytest.mark.timeout(120)

SUPERVISED = """
import os, signal, sys, time
from registry.cli.server.supervisor import Supervisor

fork, forks = os.fork, []

def signalling_fork():
    pid = fork()
    forks.append(pid)
    if len(forks) == 1 and (pid == 0) == (sys.argv[1] == "worker"):
        os.kill(os.getpid(), signal.SIGTERM)
    if len(forks) == 2 and pid:
        os.kill(os.getpid(), signal.SIGTERM)
    return pid

os.fork = signalling_fork
supervisor = Supervisor(
    1, lambda: time.sleep(600) or 0, drain=600, at_stop=lambda: print("stopped", flush=True)
)
print(supervisor.run(), len(forks))
"""

SERVED = """
import os, signal, sys, uvicorn
from registry.cli.main import main

run = uvicorn.Server.run

def run_late(self, sockets=None):
    os.kill(os.getpid(), signal.SIGTERM)
    run(self, sockets)

uvicorn.Server.run = run_late
sys.argv = ["moorage", "serve", "--listen", "127.0.0.1:0", "--data", sys.argv[1]]
sys.exit(main())
"""


def run(program: str, argument: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, argument],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_a_signal_while_a_worker_is_forked_reaches_it() -> None:
    assert run(SUPERVISED, "parent").stdout == "stopped\n0 1\n"


def test_a_worker_does_not_swallow_a_signal_of_its_first_moment() -> None:
    done = run(SUPERVISED, "worker")
    assert "ended with status -15; starting another" in done.stderr
    assert done.stdout == "stopped\n0 2\n"


def test_a_signal_before_the_event_loop_stops_the_server(tmp_path: Path) -> None:
    assert "Moorage listens on" in run(SERVED, str(tmp_path / "data")).stdout
