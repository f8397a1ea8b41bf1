"""Answers of an object store that only `storage.s3` handles."""

from storage.errors import StoreError


class NoSuchUploadError(StoreError):
    """The store has no such multipart upload: it was completed, aborted or never started."""

    def __init__(self, *, repeated: bool) -> None:
        """Create the error.

        `repeated` means that an earlier attempt got no answer and may have completed the upload.
        """
        super().__init__("the object store has no such multipart upload")
        self.repeated = repeated


class ConditionFailedError(StoreError):
    """The key already has an object, or a different one than expected."""


class NotImplementedByStoreError(StoreError):
    """The store does not implement the requested feature."""
