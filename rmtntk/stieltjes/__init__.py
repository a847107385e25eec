"""Limiting spectrum of the Gram matrix of a Gaussian mixture's noise; see :mod:`rmtntk.stieltjes.bulk`."""

from rmtntk.stieltjes.bulk import Bulk, Point

__all__ = ["Bulk", "Point"]
