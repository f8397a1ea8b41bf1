"""Names in the files of deploy/: settings and folders."""

import re
from pathlib import Path

from registry.config import FILE_KEYS, SETTINGS, Settings, load
from tests.support.servers.server import ROOT

DEPLOY = ROOT / "deploy"
_VARIABLES = {f"MOORAGE_{key.upper().replace('.', '__')}" for key in (*SETTINGS, *FILE_KEYS)}
_NAMED = re.compile(r"\bMOORAGE_[A-Z_]+\b")


def list_unknown(text: str) -> set[str]:
    """Return the variables that look like settings but are not."""
    named = {name for name in _NAMED.findall(text) if "__" in name}
    return named - _VARIABLES


def load_environment(environment: dict[str, str], data: Path) -> Settings:
    """Return the settings of a process with that environment.

    Raises ConfigError if they are invalid.
    """
    return load(config=None, data=data, overrides={}, environ=environment)
