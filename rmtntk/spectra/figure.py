"""The figure of a limiting spectrum; matplotlib is imported when it is drawn."""

from typing import TYPE_CHECKING, Any

import numpy as np

from rmtntk._typing import FloatArray
from rmtntk.errors import MissingExtraError

if TYPE_CHECKING:
    from rmtntk.spectra import LimitingSpectrum

__all__ = ["draw_spectrum"]

_COLOURS = {"density": "#0072b2", "outlier": "#d55e00", "atom": "#009e73", "sample": "#c9c9c9"}


def draw_spectrum(
    spectrum: "LimitingSpectrum", ax: Any, values: FloatArray | None, bins: int, *, finite_size: bool
) -> Any:
    """Draw on `ax`, or on a new figure; returns the axes."""
    if ax is None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("matplotlib", "plot", "The plot") from error
        ax = Figure(figsize=(7.2, 3.8), layout="constrained").subplots()
    places = [*spectrum.edges.ravel(), *spectrum.outliers, *(where for where, _ in spectrum.atoms)]
    if values is not None:
        places += [float(values.min()), float(values.max())]
    low, high = min(places), max(places)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    if values is not None:
        # bins as wide as the bulk asks for: far outliers must not coarsen them
        inner = spectrum.edges if len(spectrum.edges) else np.array([[low - pad, high + pad]])
        width = max(float(inner[-1, 1] - inner[0, 0]), 1e-300) / bins
        cuts = np.arange(min(low, float(inner[0, 0])) - 2.0 * width, high + 2.0 * width, width)
        if len(cuts) > 4000:
            cuts = np.linspace(cuts[0], high + width, 4000)
        heights = np.histogram(values, cuts)[0] / (len(values) * np.diff(cuts))
        ax.stairs(heights, cuts, fill=True, color=_COLOURS["sample"], label=f"{len(values)} sampled eigenvalues")
    top = 0.0
    for k, (a, b) in enumerate(spectrum.edges):
        # dense where the density rises like a square root
        x = a + (b - a) * 0.5 * (1.0 - np.cos(np.pi * (np.arange(400) + 0.5) / 400))
        y = spectrum.density(x)
        top = max(top, float(np.quantile(y, 0.98)))
        label = "limiting density" if k == 0 else None
        ax.fill_between(x, y, color=_COLOURS["density"], alpha=0.15, linewidth=0.0)
        ax.plot(x, y, color=_COLOURS["density"], linewidth=1.6, label=label)
    if finite_size:
        law = spectrum._law
        low, high = min(low, law.support[0] - 6.0 * law.width), max(high, law.support[1])
        x = np.linspace(low - pad, law.support[1] + pad, 1200)
        x = np.unique(np.concatenate([x, spectrum.shift + 6.0 * law.width * np.linspace(-1.0, 1.0, 401)]))
        y = spectrum.density(x, finite_size=True)
        top = max(top, float(y.max()) if not len(spectrum.edges) else min(float(y.max()), 4.0 * top))
        ax.plot(x, y, color="#333333", linewidth=1.1, label="at this n")
    top = 1.15 * top if top > 0.0 else 1.0
    for k, (where, mass) in enumerate(spectrum.atoms):
        ax.plot([where, where], [0.0, 0.96 * top], color=_COLOURS["atom"], linewidth=2.2)
        ax.plot([where], [0.96 * top], "o", color=_COLOURS["atom"], label=f"atom, mass {mass:.3g}" if k == 0 else None)
    if values is not None:
        # one eigenvalue is too low a bar to be seen
        far = values[values > (spectrum.edges[-1, 1] if len(spectrum.edges) else np.inf)]
        ax.plot(far, np.full(len(far), 0.02 * top), "|", color="#333333", markersize=9)
    label_text: str | None = "outliers ± 2 sd"
    for where, sd in zip(spectrum.outliers, spectrum.spread, strict=True):
        ax.axvspan(where - 2.0 * sd, where + 2.0 * sd, color=_COLOURS["outlier"], alpha=0.18, linewidth=0.0)
        ax.plot([where, where], [0.0, 0.3 * top], color=_COLOURS["outlier"], linewidth=1.6, label=label_text)
        ax.plot([where], [0.3 * top], "v", color=_COLOURS["outlier"], markersize=6)
        label_text = None
    ax.set(xlim=(low - pad, high + pad), ylim=(0.0, 1.04 * top), xlabel="eigenvalue", ylabel="density")
    ax.set_title(f"{spectrum.kind.upper()}, n = {spectrum.n}", loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax
