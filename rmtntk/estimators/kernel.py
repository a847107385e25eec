"""The kernel as a scikit-learn kernel object, for every estimator that takes one."""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

from rmtntk._typing import FloatArray
from rmtntk._validation import check_data
from rmtntk.estimators.networks import KernelKind, build_network, diagonal, evaluate
from rmtntk.network import Network

__all__ = ["NTKKernel"]

_STEP = 1e-4  # of log hyperparameters: error of central differences about step² and eps / step
Bounds = tuple[float, float] | Literal["fixed"]


class NTKKernel(Kernel):  # type: ignore[misc]  # scikit-learn has no types
    """Kernel of a wide network for GaussianProcessRegressor, SVC, KernelRidge, KernelPCA and others.

    It can be added to and multiplied with other kernels (``ConstantKernel() * NTKKernel() + WhiteKernel()``) and
    called, ``kernel(X, Y)``. KernelRidge and KernelPCA get the whole matrix in one call, as with no plain function.

    Parameters
    ----------
    activations, depth, kernel, weight_std, bias_std, centered
        As in :class:`rmtntk.estimators.NTKClassifier`.
    tau0 : float
        Root mean squared norm of the inputs, at which activations are centred. A kernel object does not see which rows
        are for training, so it is a constant: 1 after :class:`rmtntk.estimators.InputScaler`. Without centring it
        does not matter.
    weight_std_bounds, bias_std_bounds : (float, float) or "fixed"
        Ranges in which a Gaussian process may optimise them.

    Raises
    ------
    InfiniteDiagonalError
        At a call, for the NTK of an activation that jumps.
    TypeError, ValueError
        At a call, if a parameter is outside its domain.

    Notes
    -----
    Gradients, with respect to the logarithms of free hyperparameters, are central differences of step 1e-4, right to
    about 1e-7 of the diagonal; each costs two kernels.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process import GaussianProcessRegressor
    >>> from rmtntk.estimators import NTKKernel
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> kernel = NTKKernel("erf", depth=1, kernel="nngp", bias_std=1.0, weight_std=2.0)
    >>> model = GaussianProcessRegressor(kernel, alpha=1e-8).fit(x, np.sin(3 * x[:, 0]))
    >>> bool(abs(model.predict([[0.3]])[0] - np.sin(0.9)) < 1e-3)
    True
    """

    def __init__(
        self,
        activations: Any = "relu",
        depth: int = 3,
        kernel: KernelKind = "ntk",
        weight_std: float = 1.0,
        bias_std: float = 0.0,
        centered: bool = True,
        tau0: float = 1.0,
        weight_std_bounds: Bounds = "fixed",
        bias_std_bounds: Bounds = "fixed",
    ) -> None:
        self.activations = activations
        self.depth = depth
        self.kernel = kernel
        self.weight_std = weight_std
        self.bias_std = bias_std
        self.centered = centered
        self.tau0 = tau0
        self.weight_std_bounds = weight_std_bounds
        self.bias_std_bounds = bias_std_bounds

    @property
    def hyperparameter_weight_std(self) -> Hyperparameter:
        """The weights' standard deviation."""
        return Hyperparameter("weight_std", "numeric", self.weight_std_bounds)

    @property
    def hyperparameter_bias_std(self) -> Hyperparameter:
        """The biases' standard deviation, which must be positive to be optimised."""
        free = not isinstance(self.bias_std_bounds, str)
        if free and not self.bias_std > 0.0:
            raise ValueError(
                f"`bias_std` must be positive where it has bounds, as its logarithm varies, got {self.bias_std}"
            )
        return Hyperparameter("bias_std", "numeric", self.bias_std_bounds)

    def _network(self) -> Network:
        return build_network(self, self.kernel).with_tau0(self.tau0)

    def __call__(self, X: ArrayLike, Y: ArrayLike | None = None, eval_gradient: bool = False) -> Any:
        """Return the kernel (n, m) of X and Y, or of X and itself, and its gradient (n, n, k) if wanted."""
        x = check_data(X, "X")
        y = None if Y is None or Y is X else check_data(Y, "Y")
        if eval_gradient and Y is not None:
            raise ValueError("`eval_gradient` must be False if `Y` is given")
        value = evaluate(self._network(), self.kernel, x, y)
        return (value, self._gradient(x)) if eval_gradient else value

    def _gradient(self, x: FloatArray) -> FloatArray:
        names = [h.name for h in self.hyperparameters if not h.fixed]
        out = np.empty((len(x), len(x), len(names)))
        for k, name in enumerate(names):
            sides = []
            for sign in (1.0, -1.0):
                moved = self.clone_with_theta(self.theta)
                setattr(moved, name, getattr(self, name) * math.exp(sign * _STEP))
                sides.append(evaluate(moved._network(), self.kernel, x))
            out[:, :, k] = (sides[0] - sides[1]) / (2.0 * _STEP)
        return out

    def diag(self, X: ArrayLike) -> FloatArray:
        """Return the diagonal of the kernel of X, (n,)."""
        return diagonal(self._network(), self.kernel, check_data(X, "X"))

    def is_stationary(self) -> bool:
        """Return False: the kernel depends on norms and angles."""
        return False

    def __repr__(self) -> str:
        """Return the network in short."""
        layers = self.activations if isinstance(self.activations, str) else str(self.activations)
        return (
            f"NTKKernel({layers!r}, depth={self.depth}, kernel={self.kernel!r}, "
            f"weight_std={self.weight_std:.3g}, bias_std={self.bias_std:.3g})"
        )
