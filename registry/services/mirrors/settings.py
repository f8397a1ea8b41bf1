"""Settings of mirrors. Every command imports this module, so it imports nothing slow."""

from dataclasses import dataclass
from typing import Annotated

from registry.units import Count, Size


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorSettings:
    """`[mirrors]`: content of upstream registries."""

    max_fills: Annotated[
        Count, "Maximum number of blobs that a process fetches from upstreams at the same time."
    ] = 16
    spool_size: Annotated[
        Size,
        "Disk space in the data directory for blobs that are served while they are stored in a "
        "bucket. Each process has its own.",
    ] = 4 << 30
