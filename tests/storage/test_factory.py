from pathlib import Path

import pytest

from storage.factory import create_driver
from storage.local.driver import LocalDriver
from storage.memory import MemoryDriver


def test_local(tmp_path: Path) -> None:
    driver = create_driver("local", root=tmp_path / "storage", reserve=5)
    assert isinstance(driver, LocalDriver)
    assert (driver.name, driver.shared, driver.directory.reserve) == ("local", True, 5)
    assert driver.path("key") == tmp_path / "storage" / "key"


def test_memory(tmp_path: Path) -> None:
    driver = create_driver("memory", root=tmp_path / "storage", reserve=5)
    assert isinstance(driver, MemoryDriver)
    assert (driver.name, driver.shared) == ("memory", False)


@pytest.mark.parametrize("name", ["local", "memory"])
def test_opening_touches_nothing(name: str, tmp_path: Path) -> None:
    """Only `start` prepares the store: a read-only command must not create one."""
    create_driver(name, root=tmp_path / "storage", reserve=0)
    assert list(tmp_path.iterdir()) == []
