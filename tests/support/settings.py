"""Reading settings in tests."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from registry.config import Settings, load
from registry.errors import ConfigError


def read_settings(
    tmp_path: Path,
    toml: str = "",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """Load the settings with `toml` as the settings file of the data directory."""
    if toml:
        (tmp_path / "moorage.toml").write_text(toml)
    return load(config=None, data=tmp_path, overrides=overrides or {}, environ=environ or {})


def refusal(
    tmp_path: Path,
    toml: str = "",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> str:
    """Return the message of the ConfigError for these settings."""
    with pytest.raises(ConfigError) as refused:
        read_settings(tmp_path, toml, environ, overrides)
    return refused.value.message
