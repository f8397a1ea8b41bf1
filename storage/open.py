"""The front door: a driver by its settings."""

from collections.abc import Iterable
from pathlib import Path

from storage.driver import Driver
from storage.local import LocalDriver
from storage.memory import MemoryDriver
from storage.s3_settings import S3Settings


def open_driver(
    driver: str,
    *,
    root: Path,
    reserve: int = 0,
    bucket: S3Settings | None = None,
    name: str = "",
    beside: Iterable[str] = (),
) -> Driver:
    """Open a store with `driver`: `local` at `root`, `memory`, or `s3` in `bucket`.

    `reserve`: bytes of the local disk that are kept free. `beside`: names in `root` that are not
    the store's. `name`: what rows call the store; empty:
    as its driver.
    """
    name = name or driver
    if driver == "memory":
        return MemoryDriver(name=name)
    if bucket is not None and driver == "s3":
        # boto3 takes 0.3 s to import: only who uses it pays.
        from storage.s3 import S3Driver  # noqa: PLC0415

        return S3Driver(bucket, name=name)
    return LocalDriver(root, name=name, reserve=reserve, beside=beside)
