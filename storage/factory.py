"""Creation of a driver from its settings."""

from collections.abc import Iterable
from pathlib import Path

from storage.driver import Driver
from storage.local.driver import LocalDriver
from storage.memory import MemoryDriver
from storage.s3.settings import S3Settings


def create_driver(
    driver: str,
    *,
    root: Path,
    reserve: int = 0,
    bucket: S3Settings | None = None,
    name: str = "",
    ignored: Iterable[str] = (),
) -> Driver:
    """Return a driver of the given type: `local` at `root`, `memory`, or `s3` in `bucket`.

    `reserve` is the number of bytes kept free on the local disk. `beside` are names in `root` that
    do not belong to the store. `name` is the store's name in rows, by default the type of the
    driver.
    """
    name = name or driver
    if driver == "memory":
        return MemoryDriver(name=name)
    if bucket is not None and driver == "s3":
        # boto3 takes 0.3 s to import, so only users of S3 import it.
        from storage.s3.driver import S3Driver  # noqa: PLC0415

        return S3Driver(bucket, name=name)
    return LocalDriver(root, name=name, reserve=reserve, ignored=ignored)
