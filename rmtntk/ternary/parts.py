"""Small parts of a ternary network."""

from typing import NamedTuple

from rmtntk._typing import FloatArray
from rmtntk.integer import InputQuantiser

__all__ = ["InputQuantiser", "Preprocessing"]


class Preprocessing(NamedTuple):
    """Raw inputs become (x − mean)/scale."""

    mean: FloatArray
    scale: float
