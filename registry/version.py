"""Which Moorage this is."""

from importlib.metadata import PackageNotFoundError, version


def find_version() -> str:
    try:
        return version("moorage")
    except PackageNotFoundError:
        return "(not installed)"
