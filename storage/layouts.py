"""Detection of foreign data in a folder or bucket, by the names in it."""

from collections.abc import Callable, Iterable

REMEDY = (
    "Moorage keeps its data in a layout of its own and does not read others. Give it an empty "
    "place, and copy the images from the registry that serves them, for example with skopeo sync"
)

_MARKS = {
    "docker/registry/v2": "the data of Distribution (the image registry:2 or registry:3)",
    "registry/v2/repositories": "the data of Distribution (the image registry:2 or registry:3)",
    "v2/repositories": "the data of Distribution (the image registry:2 or registry:3)",
    "oci-layout": "an OCI image layout",
}
_SHOWN = 3


def recognize(has: Callable[[str], bool]) -> str:
    """Return a description of the layout, or an empty string if it is unknown.

    `has` reports whether a path exists in the folder or bucket.
    """
    return next((layout for path, layout in _MARKS.items() if has(path)), "")


def list_foreign(names: Iterable[str], own: Iterable[str]) -> list[str]:
    """Return the names that are not in `own`, not hidden and not `lost+found`."""
    harmless = {"lost+found", *own}
    return sorted(name for name in names if name not in harmless and not name.startswith("."))


def describe(names: list[str], layout: str) -> str:
    """Describe the content: the layout if it is known, else some of `names`, escaped."""
    if layout:
        return f"holds {layout}"
    shown = ", ".join(ascii(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"is not empty ({shown}{more})"
