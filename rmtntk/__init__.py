"""rmtntk: kernels of wide networks, their random-matrix equivalents, and ternary networks with the same kernels.

Importing compiles nothing; loops are compiled at first use and cached on disk.
"""

from rmtntk import activations, errors, layers
from rmtntk._threads import get_num_threads, set_num_threads
from rmtntk._version import __version__
from rmtntk.activations import Activation
from rmtntk.coefficients import Coefficients, coefficients
from rmtntk.equivalents import Equivalent, equivalent, spectral_error
from rmtntk.errors import (
    AccuracyError,
    AssumptionWarning,
    ConvergenceError,
    InfeasibleError,
    InfiniteDiagonalError,
    MemoryLimitError,
    MissingExtraError,
    ModelFileError,
)
from rmtntk.explain import Explanation, explain
from rmtntk.finite import FiniteNetwork
from rmtntk.integer import InputQuantiser, OutOfRangeWarning
from rmtntk.kernels import KernelDiagonals, ck, ck_ntk, kernel_diagonals, nngp, ntk
from rmtntk.learning import (
    BestRidge,
    GradientFlow,
    KernelFlow,
    LearningCurve,
    gradient_flow,
    kernel_flow,
    learning_curve,
)
from rmtntk.linear_width import LinearWidthSpectrum, linear_width_spectrum
from rmtntk.matching import Match, match
from rmtntk.mixture import GaussianMixture, Violation, toeplitz_covariance
from rmtntk.moments import Moments, moments
from rmtntk.network import Network
from rmtntk.psd import PsdMargin, psd_margin
from rmtntk.solvers import Eigenpairs, RidgeSolution, eigenpairs, ridge_solve
from rmtntk.spectra import LimitingSpectrum, Threshold, limiting_spectrum, visibility_threshold
from rmtntk.store import KernelMatrix
from rmtntk.ternary import TernaryNetwork, compress

__all__ = [
    "__version__",
    # activations and networks
    "Activation", "Network", "activations", "layers",
    # moments and kernels
    "Moments", "moments", "ck", "ck_ntk", "nngp", "ntk", "kernel_diagonals", "KernelDiagonals", "psd_margin",
    "PsdMargin", "get_num_threads", "set_num_threads",
    # data model and equivalents
    "GaussianMixture", "Violation", "toeplitz_covariance", "Coefficients", "coefficients", "Equivalent", "equivalent",
    "spectral_error",
    "Explanation", "explain",
    "Eigenpairs", "eigenpairs", "RidgeSolution", "ridge_solve",
    # spectra and learning
    "LimitingSpectrum", "limiting_spectrum", "Threshold", "visibility_threshold",
    "LinearWidthSpectrum", "linear_width_spectrum",
    "LearningCurve", "learning_curve", "BestRidge", "GradientFlow", "gradient_flow", "KernelFlow", "kernel_flow",
    # compression
    "Match", "match", "TernaryNetwork", "compress", "FiniteNetwork", "InputQuantiser",
    # larger than memory
    "KernelMatrix",
    # errors
    "errors", "AccuracyError", "AssumptionWarning", "ConvergenceError", "InfeasibleError", "InfiniteDiagonalError",
    "MemoryLimitError", "MissingExtraError", "ModelFileError", "OutOfRangeWarning",
]  # fmt: skip
