"""Who asks."""

from dataclasses import dataclass

from registry.auth.subjects import ROBOT_SIGN_IN


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody. `name` is what the books and upload sessions say.

    `credential` is what was signed in with, as the policy knows it: `user:NAME:GENERATION`,
    `robot:NAME:GENERATION` or `secret:ID`. Empty for those whom the policy does not know.
    """

    name: str
    credential: str = ""


ANONYMOUS = Principal("anonymous")
"""Anybody."""

OPERATOR = Principal("operator")
"""Whoever can run the command line on the data itself."""

RETENTION = Principal("retention")
"""The rules of retention, whoever has them applied."""


def of_user(name: str, generation: str) -> Principal:
    """A user who gave her password."""
    return Principal(name, f"user:{name}:{generation}")


def of_robot(name: str, generation: str) -> Principal:
    """A robot that an outside issuer vouches for."""
    return Principal(ROBOT_SIGN_IN + name, f"robot:{name}:{generation}")


def of_outside(subject: str) -> Principal:
    """Whom a token of an outside issuer speaks of."""
    return Principal(f"outside:{subject}")
