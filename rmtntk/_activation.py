"""The :class:`Activation` itself; what there is to choose from is in :mod:`rmtntk.activations`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike

from rmtntk._typing import FloatArray

__all__ = ["Activation", "Family", "Function", "Value"]

Family = Literal[
    "homogeneous",
    "erf",
    "gelu",
    "trig",
    "exponential",
    "gaussian",
    "rectified",
    "exp_normalized",
    "polynomial",
    "step",
    "smooth",
]
Function = Callable[[FloatArray], FloatArray]
Value = float | tuple[float, ...]

NAMED_STEPS: dict[str, dict[str, tuple[float, ...]]] = {
    "sign": {"thresholds": (0.0,), "levels": (-1.0, 1.0)},
    "heaviside": {"thresholds": (0.0,), "levels": (0.0, 1.0)},
}


@final
@dataclass(frozen=True)
class Activation:
    """An activation function; build one with the functions and names of :mod:`rmtntk.activations`.

    Attributes
    ----------
    name : str
        Name under which :func:`rmtntk.activations.get` finds it; ``"custom"`` for a user's function.
    parameters : tuple of (str, float or tuple of float)
        Parameters of `name`, in order.
    family : str
        How its integrals are computed (see the page of :mod:`rmtntk.activations`).
    breakpoints : tuple of float
        Points where the function or its derivative jumps, increasing, in units of the argument.
    tolerance : float
        For the family ``smooth``: error wanted of kernel entries, in units of the kernel's diagonal.
    constants : tuple of float
        What the family's closed forms need, in the order given on the page of :mod:`rmtntk.activations`.
    """

    name: str
    parameters: tuple[tuple[str, Value], ...]
    family: Family
    breakpoints: tuple[float, ...] = ()
    tolerance: float = 1e-10
    constants: tuple[float, ...] = ()
    function: Function = field(default=np.asarray, repr=False, compare=False)
    derivative_function: Function | None = field(default=None, repr=False, compare=False)
    source: tuple[Any, ...] = field(default=(), repr=False)  # a custom activation is told apart by its callables

    def __call__(self, x: ArrayLike) -> FloatArray:
        """Apply the function elementwise; shape kept, float64.

        Raises
        ------
        ValueError
            If the activation is known by its kernel only (see :attr:`is_function`).
        """
        return self.function(np.asarray(x, dtype=np.float64))

    def derivative(self, x: ArrayLike) -> FloatArray:
        """Apply the derivative elementwise; the right-hand one at breakpoints, 0 for steps.

        Raises
        ------
        ValueError
            If the activation is custom and was made without `derivative`, or is known by its kernel only.
        """
        if self.derivative_function is None:
            raise ValueError(
                f"`derivative` of the activation {self} is not known: pass derivative=... to activations.custom"
            )
        return self.derivative_function(np.asarray(x, dtype=np.float64))

    def __str__(self) -> str:
        if not self.parameters:
            return self.name
        inside = ", ".join(f"{key}={_show(value)}" for key, value in self.parameters)
        return f"{self.name}({inside})"

    @property
    def is_step(self) -> bool:
        """Whether the function is piecewise constant."""
        return self.family == "step"

    @property
    def is_function(self) -> bool:
        """Whether there is an elementwise function behind the kernel; not so for ``exp_normalized``."""
        return self.family != "exp_normalized"

    def parameter(self, key: str) -> Value:
        """Return one parameter by name."""
        return dict(self.parameters)[key]

    @property
    def thresholds(self) -> FloatArray:
        """Thresholds s_1 < … < s_k of a step, in units of its argument, shape (k,)."""
        return np.array(self._step_parameter("thresholds"))

    @property
    def levels(self) -> FloatArray:
        """Levels l_0, …, l_k of a step, shape (k + 1,)."""
        return np.array(self._step_parameter("levels"))

    def _step_parameter(self, key: str) -> Value:
        if not self.is_step:
            raise AttributeError(f"only step activations have {key}; {self} is not piecewise constant")
        if self.name == "step":
            return self.parameter(key)
        return NAMED_STEPS[self.name][key]


def _show(value: Value) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(f"{entry:.6g}" for entry in value) + ("," if len(value) == 1 else "") + ")"
    return f"{value:.6g}"
