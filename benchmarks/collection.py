"""Compare garbage collection with Debian's docker-registry, after deleting half of the images.

The same images are pushed to both. Distribution must be stopped while `garbage-collect` runs (its
documentation says why). Moorage collects while it serves. The benchmark prints the duration and CPU
seconds of the collection, the downtime of the registry, the number of pulls that were served during
the collection, and the bytes on disk before and after.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from tests.support.servers.postgres import free_port

OCI = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MOORAGE = [sys.executable, "-m", "registry.cli.main"]
PUSHERS = 4
PULLERS = 2

DISTRIBUTION = """
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@dataclass
class Side:
    """One of the two registries, with its command and its process."""

    name: str
    folder: Path
    port: int
    command: list[str]
    environ: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            env={**os.environ, **self.environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if Client(self.port).ask("GET", "/v2/")[0] == 200:
                    return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"{self.name} does not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
            self.process = None

    @contextmanager
    def running(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self.stop()

    def count_blobs(self) -> tuple[int, int]:
        """Return the number of files of blobs and manifests on disk, and their total bytes."""
        sizes = [
            path.stat().st_size for path in self.folder.glob("**/blobs/**/*") if path.is_file()
        ]
        return len(sizes), sum(sizes)


class Client:
    """HTTP client with a persistent connection."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = ""
    ) -> tuple[int, str, bytes]:
        """Send a request and return the status, the Location header and the body."""
        headers = {"Accept": OCI, **({"Content-Type": kind} if kind else {})}
        self._http.request(method, path, body, headers)
        answer = self._http.getresponse()
        return answer.status, answer.headers.get("Location", ""), answer.read()

    def push_blob(self, repository: str, data: bytes) -> dict[str, object]:
        digest = f"sha256:{sha256(data).hexdigest()}"
        status, location, _ = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        assert status == 202
        where = location[location.index("/v2/") :]
        joint = "&" if "?" in where else "?"
        status, _, text = self.ask(
            "PUT", f"{where}{joint}digest={digest}", data, "application/octet-stream"
        )
        assert status == 201, text
        return {"mediaType": LAYER, "digest": digest, "size": len(data)}

    def push_image(self, repository: str, number: int) -> str:
        """Push an image with a unique config and layer, and return its digest."""
        parts = [f"{part} of {number} ".encode() * 20 for part in ("config", "layer")]
        config, layer = (self.push_blob(repository, data) for data in parts)
        manifest = {"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": [layer]}
        raw = json.dumps(manifest).encode()
        path = f"/v2/{repository}/manifests/v{number}"
        status, _, text = self.ask("PUT", path, raw, OCI)
        assert status == 201, text
        return f"sha256:{sha256(raw).hexdigest()}"


def repository_of(number: int) -> str:
    return f"bench/r{number % 100}"


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Call `work` with 0, 1, 2, ... in parallel threads. Raises the error of any of them."""
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(work, range(count)))


def fill(side: Side, images: int) -> list[str]:
    """Push all images and return their digests."""
    digests = [""] * images

    def push(first: int) -> None:
        client = Client(side.port)
        for number in range(first, images, PUSHERS):
            digests[number] = client.push_image(repository_of(number), number)

    in_threads(PUSHERS, push)
    return digests


def delete_half(side: Side, digests: list[str]) -> None:
    """Delete every second image by digest, so that neither registry keeps any of its content."""

    def delete(first: int) -> None:
        client = Client(side.port)
        for number in range(1 + 2 * first, len(digests), 2 * PUSHERS):
            path = f"/v2/{repository_of(number)}/manifests/{digests[number]}"
            status, _, text = client.ask("DELETE", path)
            assert status == 202, text

    in_threads(PUSHERS, delete)


class Pulls:
    """Clients that continuously pull the images that were not deleted."""

    def __init__(self, side: Side, digests: list[str]) -> None:
        self.served = 0
        self.refused = 0
        self.longest = 0.0
        self._side = side
        self._kept = range(0, len(digests), 2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: in_threads(PULLERS, self._pull))

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def _pull(self, first: int) -> None:
        client = Client(self._side.port)
        number = first
        while not self._over.is_set():
            number = (number + 7) % len(self._kept)
            image = self._kept[number]
            begun = time.monotonic()
            try:
                status, _, _ = client.ask("GET", f"/v2/{repository_of(image)}/manifests/v{image}")
            except OSError:
                client = Client(self._side.port)
                self.refused += 1
                time.sleep(0.01)
                continue
            assert status == 200
            self.served += 1
            self.longest = max(self.longest, time.monotonic() - begun)


@dataclass(frozen=True)
class Run:
    """Result of a collection.

    `took` is the duration, `cpu` the CPU time and `away` the downtime of the registry, in seconds.
    `memory` is the peak memory of the process in MiB, `said` the last line on standard error.
    """

    took: float
    cpu: float
    memory: int
    said: str
    away: float = 0.0


def run_measured(command: list[str], environ: dict[str, str]) -> Run:
    """Run a command and measure its duration, CPU time and peak memory."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environ},
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        memory = 0
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            memory = max(memory, read_memory(process.pid))
            time.sleep(0.1)
        _, status, used = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().decode().splitlines()
    assert process.returncode == 0, lines
    return Run(
        took=time.monotonic() - begun,
        cpu=used.ru_utime + used.ru_stime,
        memory=memory // 1024,
        said=lines[-1] if lines else "",
    )


def read_memory(pid: int) -> int:
    """Return the peak memory of the process so far, in KiB.

    `wait4` cannot be used: it returns the memory of the parent if that was larger at the fork.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) if found else 0  # the process has just ended


def collect_distribution(side: Side) -> Run:
    begun = time.monotonic()
    side.stop()
    run = run_measured(
        ["docker-registry", "garbage-collect", "--delete-untagged", side.command[-1]], {}
    )
    side.start()
    return replace(run, said="", away=time.monotonic() - begun)


def collect_moorage(side: Side) -> Run:
    """Run `gc run` as a separate process while the server keeps running."""
    return run_measured([*MOORAGE, "gc", "run", "--data", str(side.folder)], side.environ)


def sides_in(folder: Path) -> list[Side]:
    """Return both registries, with their data in the folder."""
    config = folder / "distribution.yml"
    theirs, ours = folder / "distribution", folder / "moorage"
    ports = free_port(), free_port()
    config.write_text(DISTRIBUTION.format(root=theirs, port=ports[0]))
    listen = f"127.0.0.1:{ports[1]}"
    later = (time.localtime(time.time() + hours * 3600) for hours in (6, 7))
    return [
        Side("Distribution", theirs, ports[0], ["docker-registry", "serve", str(config)]),
        Side(
            "Moorage",
            ours,
            ports[1],
            [*MOORAGE, "serve", "--data", str(ours), "--listen", listen],
            # The window prevents collection by the server, so that `gc run` does all the work.
            {
                "MOORAGE_GC__GRACE_PERIOD": "1s",
                "MOORAGE_GC__WINDOW": "-".join(time.strftime("%H:%M", at) for at in later),
                "MOORAGE_GC__UNTAGGED": "delete",
            },
        ),
    ]


def fill_once(side: Side, images: int) -> list[str]:
    """Push the images unless they were pushed before, and return their digests."""
    filled = side.folder.with_suffix(f".{images}.json")
    if filled.exists():
        return list(json.loads(filled.read_text()))
    assert not side.folder.exists(), f"{side.folder} has other images"
    with side.running():
        begun = time.monotonic()
        digests = fill(side, images)
        print(f"{side.name}: {images} images pushed in {time.monotonic() - begun:.0f} s")
    filled.write_text(json.dumps(digests))
    return digests


def measure(side: Side, digests: list[str]) -> None:
    """Delete half of the images, and collect their content while the others are pulled."""
    with side.running():
        begun = time.monotonic()
        delete_half(side, digests)
        print(f"{side.name}: half deleted in {time.monotonic() - begun:.0f} s")
        time.sleep(3)  # longer than the grace period
        before = side.count_blobs()
        pulls = Pulls(side, digests)
        with pulls.running():
            collect = collect_distribution if side.name == "Distribution" else collect_moorage
            run = collect(side)
        served = pulls.served
        time.sleep(5)  # the keys of removed blobs are deleted in several rounds
        after = side.count_blobs()
    print(
        f"  collected in {run.took:.1f} s ({run.cpu:.1f} CPU s, {run.memory} MiB), away "
        f"{run.away:.1f} s, {served} pulls served meanwhile, {pulls.refused} refused, longest "
        f"{pulls.longest * 1000:.0f} ms\n"
        f"  files {before[0]} -> {after[0]}, bytes {before[1]} -> {after[1]}\n"
        f"  {run.said}"
    )


def compare(folder: Path, images: int, names: list[str]) -> None:
    """Fill the folder unless it was filled before, and measure on a copy of it."""
    for number, filled in enumerate(sides_in(folder)):
        if filled.name.lower() not in names:
            continue
        digests = fill_once(filled, images)
        with tempfile.TemporaryDirectory(dir=folder) as copy:
            side = sides_in(Path(copy))[number]
            shutil.copytree(filled.folder, side.folder)
            measure(side, digests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--sides", nargs="+", default=["distribution", "moorage"])
    parser.add_argument("--folder", type=Path, help="keep the images there, for the next run")
    options = parser.parse_args()
    assert shutil.which("docker-registry"), "Debian's package docker-registry is not installed"
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        compare(folder, options.images, options.sides)


if __name__ == "__main__":
    main()
