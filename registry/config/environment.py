"""Variables of the environment that are not settings."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SignInVariables:
    """Credentials in the environment for signing in to a remote registry."""

    password: str = field(repr=False)
    token: str = field(repr=False)


def read_sign_in(environ: Mapping[str, str] | None = None) -> SignInVariables:
    """Return MOORAGE_PASSWORD and MOORAGE_TOKEN; an unset variable is empty."""
    if environ is None:
        environ = os.environ
    return SignInVariables(environ.get("MOORAGE_PASSWORD", ""), environ.get("MOORAGE_TOKEN", ""))


def read_passphrase(environ: Mapping[str, str] | None = None) -> str:
    """Return MOORAGE_BACKUP_PASSPHRASE, which encrypts the keys in a backup; empty if unset."""
    if environ is None:
        environ = os.environ
    return environ.get("MOORAGE_BACKUP_PASSPHRASE", "")
