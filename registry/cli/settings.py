"""The settings that a command's options name."""

import argparse
from pathlib import Path

from registry.config import Settings, load


def load_settings(args: argparse.Namespace, overrides: dict[str, str] | None = None) -> Settings:
    """The settings that the options name; ConfigError."""
    return load(
        config=Path(args.config) if args.config else None,
        data=Path(args.data) if args.data else None,
        overrides=overrides or {},
    )
