"""The front door: a driver by its settings."""

from pathlib import Path

from storage.driver import Driver
from storage.local import LocalDriver
from storage.memory import MemoryDriver


def open_driver(driver: str, *, root: Path, reserve: int) -> Driver:
    """Open the store named `driver` (`local` or `memory`); `reserve` in bytes."""
    if driver == "memory":
        return MemoryDriver()
    return LocalDriver(root, reserve=reserve)
