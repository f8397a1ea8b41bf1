"""What can be done to a repository. Source: Distribution's token scope specification."""

from enum import StrEnum


class Action(StrEnum):
    """The right a route asks for; it stands beside the route in the table."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CATALOG = "catalog"
    # Only that the caller is let in at all: `GET /v2/`.
    SIGN_IN = "sign-in"
