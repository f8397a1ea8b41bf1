"""Measure the cost of authentication: GET one manifest anonymously, with a token and with Basic.

Prints the CPU time of the server per request. Three servers, each with its own data, are measured
in turns.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
from compare import OCI, Side, push_blob

from registry.app import open_runtime
from registry.auth.audit_log import Actor
from registry.config import load

REQUESTS = 2000
AT_ONCE = 8
PASSWORD = "benchmark password"  # noqa: S105 - of nobody
ACCOUNT = ("bench", PASSWORD)


def serve(folder: Path, port: int, mode: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "registry.cli.main", "serve"),
            *("--data", str(folder), "--listen", f"127.0.0.1:{port}"),
        ],
        env={**os.environ, "MOORAGE_AUTH__MODE": mode},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def wait_until_up(side: Side) -> None:
    while True:
        try:
            await side.http.get("/healthz")
        except httpx.TransportError:
            await asyncio.sleep(0.05)
        else:
            return


async def add_user(folder: Path) -> None:
    settings = load(config=None, data=folder, overrides={}, environ={})
    async with open_runtime(settings) as opened:
        await opened.access.users.add(*ACCOUNT, Actor("operator"), admin=True)


async def push_manifest(side: Side) -> None:
    digest = await push_blob(side, "bench/app", b"config")
    config = {"mediaType": OCI, "digest": digest, "size": 6}
    manifest = {"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": []}
    answer = await side.http.put(
        "/v2/bench/app/manifests/v0", content=json.dumps(manifest), headers={"Content-Type": OCI}
    )
    answer.raise_for_status()


async def find_token(side: Side) -> str:
    scope = "repository:bench/app:pull"
    answer = await side.http.get("/token", params={"scope": scope}, auth=ACCOUNT)
    return f"Bearer {answer.raise_for_status().json()['token']}"


async def pull(side: Side, headers: dict[str, str]) -> float:
    """Return the CPU time of the server per request, in milliseconds."""

    async def client() -> None:
        for _ in range(REQUESTS // AT_ONCE):
            answer = await side.http.get("/v2/bench/app/manifests/v0", headers=headers)
            answer.raise_for_status()

    before = side.cpu()
    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return (side.cpu() - before) / REQUESTS * 1000


async def measure(folder: Path, rounds: int) -> None:
    processes = []
    sides = {}
    try:
        for number, name in enumerate(("open", "token", "basic")):
            mode = "none" if name == "open" else "token"
            processes.append(serve(folder / name, 5100 + number, mode))
            sides[name] = Side(name, 5100 + number)
            await wait_until_up(sides[name])
            if name != "open":
                await add_user(folder / name)
                sides[name].http.auth = ACCOUNT
            await push_manifest(sides[name])
            sides[name].http.auth = None
        request = httpx.Request("GET", "http://x")
        basic = next(httpx.BasicAuth(*ACCOUNT).auth_flow(request))
        headers = {
            "open": {},
            "token": {"Authorization": await find_token(sides["token"])},
            "basic": {"Authorization": basic.headers["Authorization"]},
        }
        used: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds):
            for name in sorted(sides, reverse=bool(number % 2)):
                used[name].append(await pull(sides[name], headers[name]))
        for name, figures in used.items():
            median = statistics.median(figures)
            ratio = median / statistics.median(used["open"])
            print(
                f"{name:<6} {median:6.3f} ms CPU a request "
                f"({min(figures):.3f}-{max(figures):.3f}), {ratio:5.3f} of open"
            )
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), args.rounds))


if __name__ == "__main__":
    main()
