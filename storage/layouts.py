"""Layouts of stores: the marker of our own, and foreign data recognized by its paths."""

from collections.abc import Iterable
from pathlib import Path

MARKER = b"moorage storage 1\n"
"""Content of the key VERSION, which marks a directory or bucket as a store of Moorage."""

REMEDY = (
    "Moorage cannot read the layout of another registry. Give Moorage an empty directory or bucket "
    "prefix, and copy the images from the registry that serves them, for example with skopeo sync"
)

_LAYOUTS = {
    "docker/registry/v2": "the data of Distribution (the image registry:2 or registry:3)",
    "registry/v2/repositories": "the data of Distribution (the image registry:2 or registry:3)",
    "v2/repositories": "the data of Distribution (the image registry:2 or registry:3)",
    "oci-layout": "an OCI image layout",
}
_MAX_SHOWN = 3

FOREIGN_PATHS = tuple(_LAYOUTS)
"""Paths that exist in the layouts of other registries."""


def recognize(found: Iterable[str]) -> str:
    """Return a description of the layout, or an empty string if it is unknown.

    `found` are those of FOREIGN_PATHS that exist in the directory or bucket.
    """
    return next((_LAYOUTS[path] for path in found), "")


def recognize_directory(root: Path) -> str:
    """Return a description of the layout of a directory, as `recognize` does."""
    return recognize(path for path in FOREIGN_PATHS if (root / path).exists())


def foreign_names(names: Iterable[str], own: Iterable[str]) -> list[str]:
    """Return the names that are not in `own`, not hidden and not `lost+found`."""
    harmless = {"lost+found", *own}
    return sorted(name for name in names if name not in harmless and not name.startswith("."))


def describe(names: list[str], layout: str) -> str:
    """Describe the content: the layout if it is known, else some of `names`, escaped."""
    if layout:
        return f"contains {layout}"
    shown = ", ".join(ascii(name) for name in names[:_MAX_SHOWN])
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return f"is not empty ({shown}{more})"
