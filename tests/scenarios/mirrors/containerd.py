"""A separate containerd, and its client `ctr`."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.scenarios.clients.client import Client, find_program, need_root
from tests.support.missing import missing

START_S, STOP_S = 60.0, 30.0


@contextmanager
def running_containerd(folder: Path, env: dict[str, str]) -> Iterator[Client]:
    """Start a containerd below `folder`, whose path must be short, and yield its client."""
    need_root("containerd")
    program = find_program("containerd", "containerd")
    address = folder / "c.sock"
    log = folder / "containerd.log"
    options = [f"--root={folder / 'root'}", f"--state={folder / 'state'}", f"--address={address}"]
    (folder / "config.toml").write_text("version = 2\n")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, f"--config={folder / 'config.toml'}", *options],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    client = Client(find_program("ctr", "containerd"), env | {"CONTAINERD_ADDRESS": str(address)})
    try:
        deadline = time.monotonic() + START_S
        while not address.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                missing(f"a containerd that can start here\n{log.read_text()[-4000:]}\n")
            time.sleep(0.05)
        yield client
    finally:
        process.terminate()
        process.wait(STOP_S)
