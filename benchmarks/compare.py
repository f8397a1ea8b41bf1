"""Compare two registries: run the same work in turns and print medians, ratios and CPU seconds."""

import argparse
import asyncio
import hashlib
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

MIB = 1 << 20
TICKS = 100
"""Clock ticks per second in /proc/PID/stat."""

OCI = "application/vnd.oci.image.manifest.v1+json"


class Side:
    """One of the two registries."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.large = ""
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300)

    def cpu(self) -> float:
        """Return the CPU seconds of the processes that listen on the port."""
        return sum(_cpu_of(pid) for pid in _listeners(self.port))


def _listeners(port: int) -> set[int]:
    suffix = f":{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(suffix) and row[3] == "0A"}
    pids = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                pids.add(int(process.name))
        except OSError:
            continue  # the process has ended
    return pids


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def push_blob(side: Side, repository: str, data: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    answer = await side.http.post(f"/v2/{repository}/blobs/uploads/")
    answer = await side.http.patch(answer.headers["Location"], content=data)
    location = httpx.URL(answer.headers["Location"]).copy_merge_params({"digest": digest})
    answer = await side.http.put(location)
    answer.raise_for_status()
    return digest


async def push_large(side: Side, run: str) -> None:
    side.large = await push_blob(side, "bench/large", run.encode() + bytes(256 * MIB))


async def pull_large(side: Side, run: str) -> None:
    del run
    async with side.http.stream("GET", f"/v2/bench/large/blobs/{side.large}") as stream:
        async for _ in stream.aiter_raw():
            pass


async def push_small(side: Side, run: str) -> None:
    """Push 100 images of three small blobs with 8 clients."""

    async def client(number: int) -> None:
        for image in range(100 // 8):
            parts = [f"{run}{number}{image}{part}".encode() * 100 for part in range(3)]
            digests = [await push_blob(side, f"bench/small{number}", part) for part in parts]
            layers = [
                {"mediaType": OCI, "digest": digest, "size": len(part)}
                for digest, part in zip(digests, parts, strict=True)
            ]
            manifest = {"schemaVersion": 2, "mediaType": OCI, "config": layers[0], "layers": layers}
            answer = await side.http.put(
                f"/v2/bench/small{number}/manifests/v{image}",
                content=json.dumps(manifest),
                headers={"Content-Type": OCI},
            )
            answer.raise_for_status()

    await asyncio.gather(*(client(number) for number in range(8)))


async def pull_manifests(side: Side, run: str) -> None:
    """Pull 2,000 manifests by tag with 8 clients."""
    del run

    async def client(number: int) -> None:
        for _ in range(250):
            answer = await side.http.get(
                f"/v2/bench/small{number}/manifests/v0", headers={"Accept": OCI}
            )
            answer.raise_for_status()

    await asyncio.gather(*(client(number) for number in range(8)))


WORK: dict[str, Callable[[Side, str], Awaitable[None]]] = {
    "push 256 MiB": push_large,
    "pull 256 MiB": pull_large,
    "push 96 small images": push_small,
    "pull 2000 manifests": pull_manifests,
}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", type=int, required=True, metavar="PORT")
    parser.add_argument("--other", type=int, required=True, metavar="PORT")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    sides = [Side("ours", args.ours), Side("other", args.other)]
    print(f"{'work':<22} {'':<6} {'seconds':>8} {'least':>7} {'most':>7} {'CPU s':>7}")
    for name, work in WORK.items():
        seconds: dict[str, list[float]] = {side.name: [] for side in sides}
        cpu: dict[str, list[float]] = {side.name: [] for side in sides}
        for number in range(args.rounds):
            for side in sides if number % 2 else reversed(sides):
                before, started = side.cpu(), time.monotonic()
                await work(side, f"{time.time()}{side.name}")
                seconds[side.name].append(time.monotonic() - started)
                cpu[side.name].append(side.cpu() - before)
        for side in sides:
            wall, used = seconds[side.name], statistics.median(cpu[side.name])
            print(
                f"{name:<22} {side.name:<6} {statistics.median(wall):8.2f} "
                f"{min(wall):7.2f} {max(wall):7.2f} {used:7.2f}"
            )
        ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["other"])
        print(f"{'':<22} ratio  {ratio:8.2f}")


if __name__ == "__main__":
    asyncio.run(main())
