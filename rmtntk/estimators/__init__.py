"""scikit-learn estimators: ridge regression and Gaussian processes with kernels of wide networks, ternary features.

Needs the extra ``sklearn`` (scikit-learn 1.6 or later), which is imported nowhere else in the package.
"""

from rmtntk.errors import MissingExtraError

try:
    import sklearn
except ImportError as error:
    raise MissingExtraError("scikit-learn", "sklearn", "rmtntk.estimators") from error
if tuple(int(part) for part in sklearn.__version__.split(".")[:2]) < (1, 6):
    raise MissingExtraError("scikit-learn>=1.6", "sklearn", f"rmtntk.estimators (found {sklearn.__version__})")

from rmtntk.estimators.classifier import NTKClassifier
from rmtntk.estimators.features import TernaryFeatures
from rmtntk.estimators.kernel import NTKKernel
from rmtntk.estimators.regressor import NTKRegressor, RidgePath
from rmtntk.estimators.transformers import InputScaler, KernelFeatures

__all__ = [
    "InputScaler",
    "KernelFeatures",
    "NTKClassifier",
    "NTKKernel",
    "NTKRegressor",
    "RidgePath",
    "TernaryFeatures",
]
