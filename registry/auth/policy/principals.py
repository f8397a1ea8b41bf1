"""Principals: the identities of callers."""

from msgspec import Struct

from registry.auth.policy.subjects import ROBOT_SIGN_IN


class Principal(Struct, frozen=True):
    """The identity of a caller. `name` appears in the audit log and in upload sessions.

    `credential` is what the caller signed in with, as the policy knows it: `user:NAME:GENERATION`,
    `robot:NAME:GENERATION` or `secret:ID`. It is empty for principals without an account in the
    policy.
    """

    name: str
    credential: str = ""


ANONYMOUS = Principal("anonymous")
"""A caller who has not signed in."""

OPERATOR = Principal("operator")
"""A person who runs the command line on the machine that has the data."""

RETENTION = Principal("retention")
"""The retention rules, regardless of who runs them."""

MIRROR = Principal("mirror")
"""The registry itself, when it stores content of an upstream."""


def of_user(name: str, generation: str) -> Principal:
    """Return the principal of a user who signed in with a password."""
    return Principal(name, f"user:{name}:{generation}")


def of_robot(name: str, generation: str) -> Principal:
    """Return the principal of a robot that an external issuer authenticated."""
    return Principal(ROBOT_SIGN_IN + name, f"robot:{name}:{generation}")


def of_external(subject: str) -> Principal:
    """Return the principal of a token from an external issuer."""
    return Principal(f"outside:{subject}")
