"""Every Gaussian moment of every named activation against mpmath with 50 digits.

    python validation/moments_check.py            # the committed table, and further scales recomputed, 1 minute
    python validation/moments_check.py --quick    # the committed table, and one scale of a few names recomputed

Errors are in the documented units (`rmtntk.Moments.error`): with s² = E[σ²] they are s, s/τ, s/τ², s/τ³ for mean, d1,
d2, d3, s² for variance and second, s²/τ² for half_d2_squared, and d1_squared itself. The last two columns say what the
package promises (`.error`) and whether it keeps it.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, save
from matplotlib.figure import Figure
from mpmath import mp, mpf

import rmtntk as rn
from rmtntk import activations

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import oracles_named  # noqa: E402 - found through the line above

DPS = 50
FURTHER_TAUS = (1e-6, 0.1, 5.0, 1e5)  # beyond and between the scales of the committed table
DOCUMENTED = 1e-12  # docs/accuracy.md
QUICK = ("relu", "gelu", "erf", "sin", "step", "exp_normalized")
FIELDS = ("mean", "d1", "d2", "d3", "variance", "d1_squared", "half_d2_squared", "second")
FLOOR = mpf(10) ** -290  # what underflows float64 is 0 in the table


def label(row: dict[str, Any]) -> str:
    """Name and parameters in one short string."""
    return str(activations.get(row["name"], **row["parameters"]))


def units(second: Any, tau: Any, slope: Any) -> dict[str, Any]:
    """Units of the fields."""
    s = mp.sqrt(second)
    powers = {name: s / tau**k for k, name in enumerate(("mean", "d1", "d2", "d3"))}
    return powers | {
        "variance": second, "d1_squared": slope, "half_d2_squared": second / tau**2, "second": second,
    }  # fmt: skip


def compare(row: dict[str, Any]) -> dict[str, Any]:
    """Errors of one activation at one scale, by field."""
    act = activations.get(row["name"], **row["parameters"])
    got = rn.moments(act, row["tau"])
    with mp.workdps(DPS):
        wanted = {name: mpf(row[name]) for name in FIELDS}
        unit = units(wanted["second"], mpf(row["tau"]), wanted["d1_squared"])
        errors = {}
        for name in FIELDS:
            value = getattr(got, name)
            if wanted[name] == mp.inf or unit[name] == 0:
                errors[name] = 0.0 if value == float(wanted[name]) else math.inf
            elif not math.isfinite(value):
                errors[name] = math.inf
            else:
                gap = abs(mpf(value) - wanted[name])
                errors[name] = 0.0 if gap < FLOOR else float(gap / unit[name])
    return {"activation": label(row), "family": act.family, "tau": row["tau"], "error": got.error, "errors": errors}


def recompute(name: str, parameters: dict[str, Any], tau: float) -> dict[str, Any]:
    """One row of the table, from mpmath."""
    table = oracles_named.reference_moments(name, parameters, tau, dps=DPS)
    return {"name": name, "parameters": parameters, "tau": tau} | {key: mp.nstr(table[key], 30) for key in FIELDS}


def representable(name: str, parameters: dict[str, Any], tau: float, row: dict[str, Any]) -> bool:
    """Whether every moment fits float64; where one does not, the package must refuse."""
    act = activations.get(name, **parameters)
    sizes = [abs(mpf(row[key])) for key in FIELDS if mpf(row[key]) not in (0, mp.inf)]
    fits = all(mpf(10) ** -300 < size < mpf(10) ** 300 for size in sizes)
    if not fits:
        try:
            got = rn.moments(act, tau)
        except (ValueError, ArithmeticError):
            return False
        values = [getattr(got, key) for key in FIELDS]
        if not all(math.isfinite(value) for value, key in zip(values, FIELDS, strict=True) if key != "d1_squared"):
            raise SystemExit(f"{act} at tau = {tau:g}: moments do not fit float64 and were not refused: {values}")
    return True


def exists(name: str, parameters: dict[str, Any], tau: float) -> bool:
    """Whether the moments exist and the reference can be had at this scale."""
    if name == "exp_square" and parameters["rate"] > 0.0:
        return bool(parameters["rate"] * tau**2 < 0.25)
    return name != "exp" or abs(parameters["rate"]) * tau < 18.0


def further_rows(known: list[dict[str, Any]], quick: bool) -> list[dict[str, Any]]:
    """Reference rows at the further scales, and the places where the package refuses."""
    seen: dict[str, tuple[str, dict[str, Any]]] = {}
    for row in known:
        seen.setdefault(label(row), (row["name"], row["parameters"]))
    rows = []
    for text, (name, parameters) in seen.items():
        if quick and (name not in QUICK or any(row["name"] == name for row in rows)):
            continue
        start = time.perf_counter()
        for tau in (0.1,) if quick else FURTHER_TAUS:
            if exists(name, parameters, tau):
                row = recompute(name, parameters, tau)
                if representable(name, parameters, tau, row):
                    rows.append(row)
                else:
                    print(f"  {text} at tau = {tau:g}: refused, its moments do not fit float64")
        print(f"  recomputed {text:60.60s} {time.perf_counter() - start:6.1f} s", flush=True)
    return rows


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Worst errors of an activation over its scales."""
    table: dict[str, dict[str, Any]] = {}
    for result in results:
        entry = table.setdefault(
            result["activation"],
            {"activation": result["activation"], "family": result["family"], "scales": 0, "error": 0.0, "ratio": 0.0}
            | dict.fromkeys(FIELDS, 0.0),
        )
        entry["scales"] += 1
        for name, value in result["errors"].items():
            entry[name] = max(entry[name], value)
        worst = max(result["errors"].values())
        entry["error"] = max(entry["error"], result["error"])
        entry["ratio"] = max(entry["ratio"], worst / result["error"] if worst > 0.0 else 0.0)
    return list(table.values())


def draw(results: list[dict[str, Any]]) -> Figure:
    """Worst error of every activation against scale, by family, with what is promised."""
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    axes = figure.subplots()
    families = sorted({result["family"] for result in results})
    colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B", "#7F7F7F",
               "#B5BD00", "#6A3D9A"]  # fmt: skip
    for k, family in enumerate(families):
        own = [result for result in results if result["family"] == family]
        spread = 1.0 + 0.045 * (k - 0.5 * len(families))
        errors = np.array([max(max(result["errors"].values()), 1e-18) for result in own])
        tau = np.array([result["tau"] for result in own]) * spread**3
        axes.loglog(tau, errors, "o", markersize=4.5, alpha=0.75, color=colours[k % len(colours)], label=family)
        promised = np.array([result["error"] for result in own])
        axes.loglog(tau, promised, "_", markersize=9, alpha=0.5, color=colours[k % len(colours)])
    eps = float(np.finfo(np.float64).eps)
    axes.axhline(eps, color="0.4", linewidth=0.9, linestyle=":")
    axes.annotate("eps", (2e-7, 1.15 * eps), color="0.35", fontsize=9)
    axes.set_xlabel("scale τ")
    axes.set_ylabel("largest error of the eight moments, natural units")
    axes.set_title("Gaussian moments against 50 digits: found (dots) and promised (bars)", fontsize=11)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.set_xlim(1e-7, 1e6)
    axes.grid(alpha=0.25)
    return figure


def main() -> None:
    """Compare, print, write JSON and the figure."""
    args = parser(__doc__ or "").parse_args()
    source = json.loads((ROOT / "tests" / "data" / "moments.json").read_text(encoding="utf-8"))
    known = source["rows"]
    missing = sorted(set(activations.names()) - {row["name"] for row in known})
    if missing:
        raise SystemExit(f"the reference table has no rows of {missing}: add them to validation/reference_moments.py")
    results = [compare(row) for row in (*known, *further_rows(known, args.quick))]
    table = summarise(results)
    print(f"{len(results)} comparisons of 8 moments, {len(table)} activations, all {len(activations.names())} names")
    head = "".join(f"{name:>9.9s}" for name in ("mean", "d1", "d2", "d3", "variance", "d1_sq", "half_d2", "second"))
    print(f"{'activation':44}{'scales':>7}{head}{'promised':>10}{'kept':>6}")
    for entry in table:
        cells = "".join(f"{entry[name]:9.1e}" for name in FIELDS)
        kept = "yes" if entry["ratio"] <= 1.0 else "NO"
        print(f"{entry['activation']:44.44s}{entry['scales']:7d}{cells}{entry['error']:10.1e}{kept:>6}")
    broken = [result for result in results if max(result["errors"].values()) > result["error"]]
    for result in broken:
        print(f"NOT KEPT: {result['activation']} at tau = {result['tau']:g}: {result['errors']}, {result['error']:.1e}")
    args.out.mkdir(parents=True, exist_ok=True)
    draw(results).savefig(args.out / "moments_check.png", dpi=120)
    content = {"mpmath_digits": DPS, "table": table, "broken": broken, "rows": results}
    print(f"written: {args.out / 'moments_check.png'}, {save(args.out, 'moments_check', args, content)}")
    wrong = [result for result in broken if max(result["errors"].values()) > DOCUMENTED]
    if wrong:
        raise SystemExit(f"{len(wrong)} rows are outside the documented accuracy {DOCUMENTED:g}")


if __name__ == "__main__":
    main()
