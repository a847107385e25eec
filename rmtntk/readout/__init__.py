"""Linear readouts of features: ridge, logistic, their integer versions, and the fit of a stream.

All have ``.scores(features)``, ``.kind``, ``.bits``, ``.nbytes``, ``.alpha``, ``.coefficients``, ``.intercept`` and
``.describe()``, from which :func:`restore` makes them again.
"""

from rmtntk.readout.logistic import Logistic, fit_logistic, softmax
from rmtntk.readout.quantised import Quantised, quantise
from rmtntk.readout.restoring import Readout, restore
from rmtntk.readout.ridge import Ridge, fit_ridge
from rmtntk.readout.streaming import StreamingRidge

__all__ = [
    "Logistic",
    "Quantised",
    "Readout",
    "Ridge",
    "StreamingRidge",
    "fit_logistic",
    "fit_ridge",
    "quantise",
    "restore",
    "softmax",
]
