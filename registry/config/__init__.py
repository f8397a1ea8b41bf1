"""Settings from defaults, a TOML file, the environment and options, read once into a frozen tree.

Each of these sources overrides the ones before it. No other package reads the environment.
"""

from registry.config.checks import require_safe_listen, sends_passwords_in_clear
from registry.config.environment import read_passphrase, read_sign_in
from registry.config.load import find_log_format, load
from registry.config.show import show
from registry.config.tree import FILE_KEYS, SETTINGS, Settings

__all__ = [
    "FILE_KEYS",
    "SETTINGS",
    "Settings",
    "find_log_format",
    "load",
    "read_passphrase",
    "read_sign_in",
    "require_safe_listen",
    "sends_passwords_in_clear",
    "show",
]
