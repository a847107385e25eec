"""Kernels larger than memory: tiles on disk (extra ``store``), or computed whenever they are used."""

from rmtntk.store.cost import KernelCost
from rmtntk.store.errors import DiskSpaceError, StoreError, StoreLockedError, UnfinishedStoreError
from rmtntk.store.matrix import KernelMatrix
from rmtntk.store.progress import Progress

__all__ = [
    "DiskSpaceError",
    "KernelCost",
    "KernelMatrix",
    "Progress",
    "StoreError",
    "StoreLockedError",
    "UnfinishedStoreError",
]
