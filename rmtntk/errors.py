"""Errors of rmtntk; every one about an argument is also a ValueError or a TypeError."""

__all__ = [
    "AccuracyError",
    "AssumptionWarning",
    "ConvergenceError",
    "InfeasibleError",
    "InfiniteDiagonalError",
    "MemoryLimitError",
    "MissingExtraError",
    "ModelFileError",
]


class AccuracyError(ValueError):
    """The requested accuracy cannot be reached; ``bound`` is the error bound that was."""

    def __init__(self, message: str, bound: float) -> None:
        super().__init__(message)
        self.bound = bound


class AssumptionWarning(UserWarning):
    """Data are outside the assumptions of an asymptotic statement; the message has the numbers that break them."""


class ConvergenceError(RuntimeError):
    """An iteration ended without meeting its tolerance; ``residual`` is what it reached."""

    def __init__(self, message: str, residual: float) -> None:
        super().__init__(message)
        self.residual = residual


class InfiniteDiagonalError(ValueError):
    """The NTK of a discontinuous activation is infinite where two inputs coincide."""


class InfeasibleError(ValueError):
    """No ternary activations have the kernel coefficients that were asked for."""


class MemoryLimitError(ValueError, MemoryError):
    """A result would not fit into memory; nothing has been allocated."""


class ModelFileError(ValueError):
    """A file is not a readable rmtntk model: foreign, truncated, altered or of another version."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f'{purpose} needs the package {package!r}, which is not installed: run `pip install "rmtntk[{extra}]"`',
            name=package,
        )
