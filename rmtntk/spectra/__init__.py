r"""Limiting spectra of CK and NTK on a Gaussian mixture, without any n×n matrix.

.. math:: \tilde K = c_1 X X^T + V A V^T + c I

has the bulk c + c1·spec(Z Zᵀ), Z the noise of the data, an atom at c where p < n, and outliers from the class means,
the covariances and the norms of the samples.
"""

from rmtntk.spectra.limit import LimitingSpectrum, limiting_spectrum
from rmtntk.spectra.threshold import Threshold, visibility_threshold

__all__ = ["LimitingSpectrum", "Threshold", "limiting_spectrum", "visibility_threshold"]
