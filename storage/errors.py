"""Errors of a store. Their messages contain no paths and no text of the driver.

Only a StoreRefusedError at startup may contain them.
"""


class StoreError(Exception):
    """Base class of all errors that a store raises."""

    reason: str = ""
    """The store's own message, truncated and escaped. For operators, never for clients."""


class StoreUnavailableError(StoreError):
    """The store cannot be read or written now. The request may be retried later."""


class StoreRefusedError(StoreUnavailableError):
    """The store is unusable until an operator changes a setting, a permission or the store."""

    code: str = ""
    """The object store's error code."""


class StoreFullError(StoreUnavailableError):
    """The store has no space for more bytes."""


class ObjectMissingError(StoreError):
    """The store has no object under the key."""


class ObjectCorruptError(StoreError):
    """The object has the wrong length or cannot be read."""


class UploadLockedError(StoreError):
    """Another request holds the upload's staged bytes, or has just published them."""


class StagedSizeError(StoreError):
    """The session has another number of staged bytes than expected. Nothing was changed."""


class UploadDataLostError(StoreError):
    """Fewer bytes are staged than were acknowledged, so the upload cannot continue."""
