"""A separate Docker engine: its own folders and socket, no bridge and no firewall rules."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.scenarios.clients.client import PATH, Client, find_program, need_root
from tests.support.missing import missing

START, STOP = 60.0, 30.0  # seconds


@contextmanager
def running_engine(
    folder: Path, env: dict[str, str], settings: Mapping[str, Any] | None = None
) -> Iterator[Client]:
    """Start an engine below `folder`. `settings` are those of its `daemon.json`.

    The path must be short, because the engine creates sockets in it.
    """
    need_root("the Docker engine")
    daemon = find_program("dockerd", "docker.io")
    # Use the client of the same package, because a newer one may need plugins that are missing.
    beside = f"{Path(daemon).parent.parent / 'bin'}:{PATH}"
    address = f"unix://{folder / 'docker.sock'}"
    docker = Client(
        find_program("docker", "docker.io", path=beside), env | {"DOCKER_HOST": address}
    )
    (folder / "daemon.json").write_text(json.dumps(settings or {}))
    log = folder / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                daemon,
                f"--host={address}",
                f"--config-file={folder / 'daemon.json'}",
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'pid'}",
                # If the machine's containerd is in use, separate namespaces keep both engines
                # apart.
                f"--containerd-namespace=moorage{os.getpid()}",
                f"--containerd-plugins-namespace=moorage{os.getpid()}.plugins",
                "--bridge=none",
                "--iptables=false",
                "--ip-forward=false",
            ],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(folder / "docker.sock", process, log)
        yield docker
    finally:
        process.terminate()
        try:
            status = process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
    assert status == 0, f"the Docker engine ended with {status}\n{log.read_text()}"


def _wait_for(address: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the socket, which the engine creates when everything else is ready."""
    deadline = time.monotonic() + START
    while not address.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            missing(f"a Docker engine that can start here\n{log.read_text()[-4000:]}\n")
        time.sleep(0.05)
