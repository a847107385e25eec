"""Errors of kernel stores."""

__all__ = ["DiskSpaceError", "StoreError", "StoreLockedError", "UnfinishedStoreError"]


class StoreError(ValueError):
    """A directory is not the kernel store that was asked for: foreign, damaged, or of other data or options."""


class UnfinishedStoreError(StoreError):
    """A tile was asked for that has not been computed yet."""


class StoreLockedError(StoreError):
    """Another process is writing to the store."""


class DiskSpaceError(StoreError, OSError):
    """The disk has no room for the kernel, or ran full on the way; finished tiles are kept."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
