"""What a store can answer instead of bytes. No message holds a path or a driver's own text, except
for StoreRefusedError at a start.
"""


class StoreError(Exception):
    """Base of everything a store raises."""

    reason: str = ""
    """What the store itself said, bounded and escaped: for operators, never for clients."""


class StoreUnavailableError(StoreError):
    """The store cannot be read or written now; the request may be tried again later."""


class StoreRefusedError(StoreUnavailableError):
    """The store cannot be used until somebody changes a setting, a permission or the store."""

    code: str = ""
    """The object store's name for its refusal."""


class StoreFullError(StoreUnavailableError):
    """No room for more bytes."""


class ObjectMissingError(StoreError):
    """The store has no object under the key."""


class ObjectDamagedError(StoreError):
    """The object under the key is not as long as it must be, or cannot be read."""


class StagedBusyError(StoreError):
    """Another request holds the upload's staged bytes, or has just published them."""


class StagedLostError(StoreError):
    """Fewer bytes are staged than were acknowledged: the upload cannot go on."""
