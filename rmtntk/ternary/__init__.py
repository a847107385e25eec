"""Networks with ternary weights and, if wanted, activations of few levels: sampled, packed, fitted, saved."""

from rmtntk.ternary.compression import compress, input_quantiser
from rmtntk.ternary.network import TernaryNetwork
from rmtntk.ternary.parts import Preprocessing

__all__ = ["Preprocessing", "TernaryNetwork", "compress", "input_quantiser"]
