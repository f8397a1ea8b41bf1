"""Docstrings and comments name modules that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE = re.compile(r"`((?:registry|storage|tests|migrations)(?:\.[a-z_][a-z0-9_]*)+)`")
HOSTS = {"registry.example", "registry.example.org"}


def list_sources() -> list[Path]:
    return [
        path
        for folder in ("registry", "storage", "migrations", "tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def exists(name: str) -> bool:
    """Return whether `name` is a module, or a name that the code of its module contains."""
    parts = name.split(".")
    path = ROOT
    for index, part in enumerate(parts):
        if (path / part).is_dir():
            path /= part
            continue
        module = path / f"{part}.py"
        rest = parts[index + 1 :]
        if not module.is_file():
            module, rest = path / "__init__.py", parts[index:]
        return module.is_file() and all(
            re.search(rf"\b{each}\b", module.read_text()) for each in rest
        )
    return True


def test_named_modules_exist() -> None:
    missing = [
        (str(path.relative_to(ROOT)), name)
        for path in list_sources()
        for name in sorted(set(MODULE.findall(path.read_text())) - HOSTS)
        if not exists(name)
    ]
    assert missing == []


@pytest.mark.parametrize("name", ["registry.api.observe", "registry.errors.NoSuchError"])
def test_a_missing_module_is_noticed(name: str) -> None:
    assert not exists(name)
