"""What the files of deploy/ name: settings, and the folders they stand in."""

import re
from pathlib import Path

from registry.config import FILE_KEYS, SETTINGS, Settings, load
from tests.support.server import ROOT

DEPLOY = ROOT / "deploy"
_VARIABLES = {f"MOORAGE_{key.upper().replace('.', '__')}" for key in (*SETTINGS, *FILE_KEYS)}
_NAMED = re.compile(r"\bMOORAGE_[A-Z_]+\b")


def list_unknown(text: str) -> set[str]:
    """Variables that look like settings and are none."""
    named = {name for name in _NAMED.findall(text) if "__" in name}
    return named - _VARIABLES


def load_environment(environment: dict[str, str], data: Path) -> Settings:
    """The settings that a process with that environment has; ConfigError."""
    return load(config=None, data=data, overrides={}, environ=environment)
