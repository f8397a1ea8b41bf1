"""Installed version of Moorage."""

from importlib.metadata import PackageNotFoundError, version


def find_version() -> str:
    try:
        return version("moorage")
    except PackageNotFoundError:
        return "(not installed)"
