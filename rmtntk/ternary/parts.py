"""Small parts of a ternary network."""

from typing import NamedTuple

from rmtntk._typing import FloatArray

__all__ = ["Preprocessing"]


class Preprocessing(NamedTuple):
    """Raw inputs become (x − mean)/scale."""

    mean: FloatArray
    scale: float
