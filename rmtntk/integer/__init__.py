r"""Networks of ternary weights and step activations in integers: bit planes and folded thresholds.

With T in {−1, 0, 1} and inputs that take few values, the argument of an activation is u = α (Σ_j T_j v_j) + β with
integers v_j. All of α and β (weight scale, sparsity, centring, preprocessing, input scaling) goes into the thresholds:
u ≥ s where the integer Σ_j T_j v_j is at least t = ⌈(s − β)/α⌉. So a layer needs popcounts and comparisons only.

The fold is exact: t is the ceiling of a√q + b with rational a, q, b, decided by squaring in rational numbers wherever
floating point leaves a doubt. The codes of all neurons are those of exact real arithmetic, on any processor and any
number of threads. One step is a definition, not a rounding of results: levels without a common unit are taken to the
nearest multiples of one (:func:`integer_levels`), and the network is the one with those levels.
"""

from rmtntk.integer.fold import fold, fold_hidden
from rmtntk.integer.inputs import InputQuantiser, OutOfRange, OutOfRangeWarning, Outside, check_quantiser, quantise
from rmtntk.integer.layer import LARGEST_CODE, IntegerLayer, row_sums
from rmtntk.integer.levels import UNITS, IntegerLevels, integer_levels
from rmtntk.integer.network import IntegerNetwork
from rmtntk.integer.run import accumulate, multiply, propagate, propagate_values

__all__ = [
    "LARGEST_CODE",
    "UNITS",
    "InputQuantiser",
    "IntegerLayer",
    "IntegerLevels",
    "IntegerNetwork",
    "OutOfRange",
    "OutOfRangeWarning",
    "Outside",
    "accumulate",
    "check_quantiser",
    "fold",
    "fold_hidden",
    "integer_levels",
    "multiply",
    "propagate",
    "propagate_values",
    "quantise",
    "row_sums",
]
