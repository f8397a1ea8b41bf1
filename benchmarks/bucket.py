"""Compare push and pull of a blob in a bucket through the registry with boto3 alone.

Pulls are measured with and without redirects.
"""

import argparse
import hashlib
import io
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from boto3.s3.transfer import TransferConfig

from tests.support.authenticated_server import resident
from tests.support.servers.seaweed import Bucket, find_weed, run_seaweed
from tests.support.servers.server import Server, serving

MIB = 1 << 20


def pieces(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    for at in range(0, len(data), MIB):
        yield bytes(view[at : at + MIB])


def push(http: httpx.Client, data: bytes) -> str:
    """Push a blob as Docker does: open a session, send one chunk of unknown length, commit."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    answer = http.post("/v2/bench/blobs/uploads/")
    answer = http.patch(answer.headers["Location"], content=pieces(data))
    assert answer.status_code == 202, answer.text
    answer = http.put(answer.headers["Location"], params={"digest": digest})
    assert answer.status_code == 201, answer.text
    return f"/v2/bench/blobs/{digest}"


def pull(http: httpx.Client, path: str) -> int:
    with http.stream("GET", path, follow_redirects=True) as answer:
        assert answer.status_code == 200
        return sum(len(piece) for piece in answer.iter_raw(MIB))


def measure(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Peak:
    """Peak memory of the server."""

    def __init__(self, server: Server) -> None:
        self.idle = self.most = resident(server)
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, resident(self._server))

    def end(self) -> None:
        self._over.set()
        self._thread.join()


def compare(bucket: Bucket, server: Server, redirecting: Server, size: int, runs: int) -> None:
    """Measure and print all cases for blobs of one size. Both servers share their data."""
    times: dict[str, list[float]] = {}
    peak = Peak(server)
    config = TransferConfig(multipart_chunksize=16 * MIB, max_concurrency=4)
    with (
        httpx.Client(base_url=server.url, timeout=300) as http,
        httpx.Client(base_url=redirecting.url, timeout=300) as sent_on,
        bucket.client() as client,
    ):
        for _ in range(runs):
            data = os.urandom(size)

            def plain_push(data: bytes = data) -> None:
                hashlib.sha256(data)
                client.upload_fileobj(io.BytesIO(data), bucket.name, "plain", Config=config)

            def plain_pull() -> None:
                body = client.get_object(Bucket=bucket.name, Key="plain")["Body"]
                for _ in body.iter_chunks(MIB):
                    pass

            def note(name: str, work: Callable[[], object]) -> None:
                times.setdefault(name, []).append(measure(work))

            paths: list[str] = []
            note("boto3 push", plain_push)
            note("registry push", lambda data=data, paths=paths: paths.append(push(http, data)))  # type: ignore[misc]
            note("boto3 pull", plain_pull)
            note("registry pull", lambda paths=paths: pull(http, paths[0]))  # type: ignore[misc]
            note("redirected pull", lambda paths=paths: pull(sent_on, paths[0]))  # type: ignore[misc]
    peak.end()
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:15} {value:6.2f} s  {size / MIB / value:6.0f} MiB/s")
    for way in ("registry push", "registry pull", "redirected pull"):
        plain = f"boto3 {way.rpartition(' ')[2]}"
        print(f"{way:15} {medians[way] / medians[plain]:6.2f} of {plain}")
    print(f"resident        {peak.idle / MIB:.0f} MiB idle, at most {peak.most / MIB:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="MiB")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    weed = find_weed()
    assert weed is not None, "SeaweedFS is not installed"
    with tempfile.TemporaryDirectory() as folder, run_seaweed(weed) as seaweed:
        data = Path(folder) / "data"
        bucket = seaweed.bucket()
        settings = {
            f"MOORAGE_{key.upper().replace('.', '__')}": value
            for key, value in {"storage.driver": "s3", **bucket.overrides()}.items()
        }
        database = {"MOORAGE_DATABASE__URL": f"sqlite:///{data}/moorage.db"}
        server = Server(data, settings=settings)
        redirecting = Server(
            Path(folder) / "other",
            settings={**settings, **database, "MOORAGE_STORAGE__REDIRECT": "true"},
        )
        with serving(server), serving(redirecting):
            compare(bucket, server, redirecting, options.size * MIB, options.runs)


if __name__ == "__main__":
    main()
