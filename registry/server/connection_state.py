"""The states of a connection."""

import enum


class State(enum.Enum):
    """The state of a connection: what it expects next."""

    HEAD = enum.auto()
    BODY = enum.auto()
    RESPONSE = enum.auto()
    DISCARD = enum.auto()
    CLOSED = enum.auto()
