"""Settings of the scrub. Every command imports this module, so it imports nothing slow."""

from dataclasses import dataclass
from typing import Annotated

from registry.units import Flag, Size, Timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubSettings:
    """`[scrub]`: verification of stored blobs against their digests."""

    enabled: Annotated[Flag, "Scrub in the background."] = True
    interval: Annotated[
        Timeout, "How often all blobs are read, from the start of one pass to the next."
    ] = 30 * 86_400.0
    limit_rate: Annotated[
        Size, "Maximum number of bytes that are read per second. `0B`: no limit."
    ] = 20 << 20
