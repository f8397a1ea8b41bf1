"""Secrets that settings read from files, such as mounted Docker or Kubernetes secrets."""

from pathlib import Path

from registry.errors import ConfigError

LARGEST = 64 << 10
"""Maximum size of a secret file in bytes."""


def read(path: Path) -> str:
    """Return the single line of text in `path`, without the trailing newline.

    Raises ConfigError if the file is unreadable, empty, too large, or not one line of UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"the secret file {path} cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST:
        raise ConfigError(f"the secret file {path} exceeds {LARGEST} bytes")
    try:
        text = raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"the secret file {path} is not valid UTF-8") from None
    if not text:
        raise ConfigError(f"the secret file {path} is empty")
    if "\n" in text or "\0" in text:
        raise ConfigError(f"the secret file {path} must contain a single line with the secret")
    return text
