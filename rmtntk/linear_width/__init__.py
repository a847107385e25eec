r"""Limiting spectra of the empirical CK and NTK of networks as wide as the data is long (linear width).

`equations` has the system, how it is solved and why a solution is the solution; `spectrum` turns a network, its widths
and the law of its input into it.
"""

from rmtntk.linear_width.spectrum import LinearWidthSpectrum, linear_width_spectrum

__all__ = ["LinearWidthSpectrum", "linear_width_spectrum"]
