"""Detection of foreign data in a folder or bucket, by the names in it."""

from collections.abc import Callable, Iterable

REMEDY = (
    "Moorage cannot read the layout of another registry. Give Moorage an empty folder or bucket "
    "prefix, and copy the images from the registry that serves them, for example with skopeo sync"
)

_MARKERS = {
    "docker/registry/v2": "the data of Distribution (the image registry:2 or registry:3)",
    "registry/v2/repositories": "the data of Distribution (the image registry:2 or registry:3)",
    "v2/repositories": "the data of Distribution (the image registry:2 or registry:3)",
    "oci-layout": "an OCI image layout",
}
_MAX_SHOWN = 3


def recognize(has: Callable[[str], bool]) -> str:
    """Return a description of the layout, or an empty string if it is unknown.

    `has` reports whether a path exists in the folder or bucket.
    """
    return next((layout for path, layout in _MARKERS.items() if has(path)), "")


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
