"""Settings of pushes and deletions.

Every command imports this module, so it imports nothing slow.
"""

from dataclasses import dataclass
from typing import Annotated

from registry.units import Flag


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentSettings:
    """`[content]`: rules for pushes and deletions."""

    allow_sparse_index: Annotated[
        Flag, "Accept an index whose manifests are not in the repository."
    ] = False
    allow_sparse_image: Annotated[
        Flag, "Accept an image whose blobs are not in the repository."
    ] = False
    allow_delete: Annotated[Flag, "Allow clients to delete tags, manifests and blobs."] = True
    read_only: Annotated[Flag, "Refuse all changes of content."] = False
