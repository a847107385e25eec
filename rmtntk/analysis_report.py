"""Kernels, equivalents and spectra as text for the terminal, and the files their commands write."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmtntk._files import atomic_write
from rmtntk.errors import MissingExtraError
from rmtntk.report import number, table
from rmtntk.spectra import LimitingSpectrum

__all__ = ["equivalent_text", "kernel_text", "spectrum_text", "write_array", "write_figure"]


def _title(outcome: Mapping[str, Any]) -> str:
    classes = "" if outcome["n_classes"] is None else f", {outcome['n_classes']} classes"
    return (
        f"{outcome['kind'].upper()} of {outcome['network']} on {outcome['data']}: {outcome['n_samples']:,} samples, "
        f"{outcome['n_features']:,} features{classes}, tau0 = {number(outcome['tau0'])}"
    )


def kernel_text(outcome: Mapping[str, Any]) -> str:
    """Return what a kernel is and how accurate."""
    seconds = sum(outcome["seconds"].values())
    return (
        f"{_title(outcome)}\n{outcome['dtype']}, trace {number(outcome['trace'], 6)}, truncation error of any entry at "
        f"most {number(outcome['truncation_error'], 2)}; {seconds:.2f} s"
    )


def equivalent_text(outcome: Mapping[str, Any]) -> str:
    """Return coefficients, shares, errors and leading eigenvalues of every form; one without an answer says why."""
    failures = outcome["failures"]
    explanation = outcome["explanation"] or f"no account of the layers: {failures['explanation']}"
    values = outcome["leading_eigenvalues"]
    rows = [["form", "‖K − K̃‖ / ‖K‖", *(f"λ{k}" for k in range(1, 6))]]
    for name in values:
        error = "" if name == "exact" else number(outcome["errors"][name], 3)
        rows.append([name, error, *(number(value) for value in values[name][:5])])
    missing = [name for name in failures if name != "explanation"]
    width = max(map(len, [*missing, *(row[0] for row in rows)]))
    lines = [table(rows), *(f"{name.ljust(width)}  none: {failures[name]}" for name in missing)]
    return "\n\n".join([_title(outcome), explanation, "\n".join(lines)])


def spectrum_text(outcome: Mapping[str, Any]) -> str:
    """Return bulk, atoms and outliers as predicted, beside the exact kernel's."""
    low, high = outcome["exact_range"]
    atoms = ", ".join(f"{number(mass)} at {number(where, 6)}" for where, mass in outcome["atoms"]) or "none"
    names = [*outcome["classes"], "ψ"]
    rows = [["outlier", "predicted", "± spread", "exact", "cos² with", "exact cos² with"]]
    top = max((right for _, right in outcome["edges"]), default=-np.inf)
    for k, value in enumerate(outcome["outliers"]):
        known = value > top and k < len(outcome["exact_leading"])
        rows.append(
            [
                str(k + 1),
                number(value),
                number(outcome["spread"][k], 2),
                number(outcome["exact_leading"][k]) if known else "",
                _alignments(outcome["alignments"][k], names),
                _alignments(outcome["exact_alignments"][k], names) if known else "",
            ]
        )
    lines = [
        _title(outcome),
        f"bulk {_intervals(outcome['edges'])}; atoms: {atoms}; exact eigenvalues from {number(low)} to {number(high)}; "
        f"Kolmogorov distance to the law ({outcome['law']}) {outcome['kolmogorov_distance']:.4f}",
        table(rows) if len(rows) > 1 else "no outliers: nothing but noise is visible in this kernel",
    ]
    if outcome["covariance"] != "population":
        lines.append(
            f"The population is estimated from the data, with {outcome['covariance']} covariances. Real data are no "
            "such mixture: take the prediction for orientation, and `rmtntk equivalent` for numbers."
        )
    lines += outcome["warnings"]
    return "\n\n".join(lines)


def _intervals(edges: Any) -> str:
    """Return up to four intervals, or how many there are and where."""
    shown = [f"[{number(left, 6)}, {number(right, 6)}]" for left, right in edges]
    if len(shown) <= 4:
        return ", ".join(shown) or "none"
    return f"{len(shown)} intervals, the last {', '.join(shown[-2:])}"


def _alignments(shares: Any, names: list[str]) -> str:
    """Return the largest two squared cosines and what they are with."""
    order = np.argsort(shares)[::-1][:2]
    return ", ".join(f"{names[k]}: {shares[k]:.3f}" for k in order if shares[k] >= 5e-4) or "none"


def write_array(path: Path, array: NDArray[Any]) -> int:
    """Write a .npy file that appears whole or not at all; returns its bytes."""
    with atomic_write(path) as stream:
        np.save(stream, array, allow_pickle=False)
    return path.stat().st_size


def write_figure(path: Path, limit: LimitingSpectrum, eigenvalues: NDArray[np.float64]) -> None:
    """Draw density and outliers over the exact kernel's eigenvalues; the format is that of the name."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The figure") from error
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    limit.plot(figure.subplots(), eigenvalues=eigenvalues, finite_size=limit.mixture.covariances.ndim < 3)
    with atomic_write(path) as stream:
        figure.savefig(stream, format=path.suffix[1:] or "png", dpi=130)
