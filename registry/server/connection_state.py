"""The states of a connection."""

import enum


class State(enum.Enum):
    """The state of a connection: what it expects next."""

    HEAD = enum.auto()
    WAITING = enum.auto()
    """A query shows whether a remembered response is current."""
    BODY = enum.auto()
    RESPONSE = enum.auto()
    DISCARD = enum.auto()
    CLOSED = enum.auto()
