"""A registry that can be started: its command and the format of its data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Layout(Enum):
    """The format of the data directory, for cases that fill it directly."""

    MOORAGE = "moorage"
    DISTRIBUTION = "distribution"
    OCI = "oci"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server runs: a folder of its own, and a port on the loopback address."""

    folder: Path
    port: int

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def fill(self, template: str) -> str:
        """Replace `{port}` and `{data}` in a text."""
        return template.replace("{port}", str(self.port)).replace("{data}", str(self.data))


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry program. `name` is its column in the table.

    `command` returns the command line for a place, and writes the configuration that it needs.
    """

    name: str
    command: Callable[[Place], list[str]]
    layout: Layout = Layout.UNKNOWN
    environment: dict[str, str] = field(default_factory=dict)
    version: tuple[str, ...] = ()
    """Command that prints the version."""
