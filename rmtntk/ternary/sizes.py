"""Bytes of a ternary network: by part, in every packing, and at work."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rmtntk.packing import measure
from rmtntk.readout import Readout
from rmtntk.ternary.forward import Forward
from rmtntk.ternary.rows import BATCH
from rmtntk.ternary.storage import recipes

if TYPE_CHECKING:
    from rmtntk.ternary.network import TernaryNetwork

__all__ = ["report", "sizes"]


def sizes(model: "TernaryNetwork") -> dict[str, int]:
    """Return the bytes of weights, thresholds with levels, readout and preprocessing."""
    steps = sum(8 * (2 * len(a.breakpoints) + 1 if a.is_step else len(a.breakpoints)) for a in model.activations)
    inputs = 0 if model.preprocessing is None else model.preprocessing.mean.nbytes + 8
    return {
        "weight_bytes": sum(layer.nbytes for layer in model.packed),
        "threshold_bytes": steps,
        "readout_bytes": 0 if model.readout is None else model.readout.nbytes,
        "preprocessing_bytes": inputs + (0 if model.quantiser is None else 24),
    }


def report(model: "TernaryNetwork", forward: Forward) -> dict[str, Any]:
    """Return what :meth:`TernaryNetwork.report` describes."""
    n_weights = sum(layer.size for layer in model.packed)
    zeros = 1.0 - sum(layer.n_nonzero for layer in model.packed) / n_weights
    readout, parts = model.readout, sizes(model)
    return {
        "activations": [str(act) for act in model.activations],
        "widths": list(model.widths),
        "n_weights": n_weights,
        "share_of_zeros": zeros,
        "neurons_without_weights": sum(layer.n_empty_rows for layer in model.packed),
        "weight_bytes_by_packing": measure(model.packed, recipes(model)),
        **parts,
        "total_bytes": sum(parts.values()),
        "runtime_bytes": forward.nbytes + parts["readout_bytes"],
        "batch_bytes": _batch_bytes(forward, readout),
        "readout": None if readout is None else readout.kind,
        "readout_bits": None if readout is None else readout.bits,
        "alpha": None if readout is None else readout.alpha,
        **model.summary,
    }


def _batch_bytes(forward: Forward, readout: Readout | None, rows: int = BATCH) -> int:
    """Peak working set of `rows` rows beside the model: inputs, the widest layer in work, features and scores."""
    widths = (forward.packed[0].shape[1], *(layer.shape[0] for layer in forward.packed))
    scores = 0 if readout is None else len(readout.intercept)
    if forward.is_integer and forward.quantiser is not None:
        first = rows * widths[0]  # codes; hidden layers go 512 rows at a time
    elif forward.is_integer:
        first = rows * (8 * widths[0] + 9 * widths[1])  # inputs, arguments and codes of the first layer
    else:  # features and arguments of two layers, each with a temporary
        first = rows * 16 * max(a + b for a, b in pairwise(widths))
    return int(first + 8 * rows * (widths[-1] + 2 * scores))
