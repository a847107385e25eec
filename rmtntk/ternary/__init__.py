"""Networks with ternary weights and, if wanted, activations of few levels: sampled, packed, fitted, saved."""

from rmtntk.ternary.compression import compress
from rmtntk.ternary.network import TernaryNetwork
from rmtntk.ternary.parts import Preprocessing

__all__ = ["Preprocessing", "TernaryNetwork", "compress"]
