"""``rmtntk kernel``, ``rmtntk equivalent`` and ``rmtntk spectrum``."""

import argparse
from pathlib import Path
from typing import Any

from rmtntk import analysis_report
from rmtntk._progress import stages
from rmtntk.commands._parser import (
    DATA,
    add_command,
    add_data,
    add_flag,
    add_json,
    add_network,
    add_quiet,
    check_place,
)
from rmtntk.commands._record import print_json
from rmtntk.workflow import (
    EquivalentOptions,
    KernelOptions,
    SpectrumOptions,
    run_equivalent,
    run_kernel,
    run_spectrum,
)
from rmtntk.workflow.analysis import FORMS

__all__ = ["EQUIVALENT_EXAMPLES", "KERNEL_EXAMPLES", "SPECTRUM_EXAMPLES", "add"]

KERNEL_EXAMPLES = (
    "--data mnist5k --kind ntk --out ntk.npy",
    "--data table.csv --label-column kind --activations erf,erf --uncentered --samples 2000 --out ck.npy --json",
    "--config run.toml --out ck.npy",
)
EQUIVALENT_EXAMPLES = (
    "--data mnist5k --kind ntk",
    "--data digits.npz --activations tanh,relu --samples 500 --json",
)
SPECTRUM_EXAMPLES = (
    "--samples 2000 --features 1000 --figure spectrum.png",
    "--data mnist5k --covariance diagonal",
)


def add(commands: Any) -> None:
    """Add the three commands."""
    _add_kernel(commands)
    _add_equivalent(commands)
    _add_spectrum(commands)


def _add_shared(parser: argparse.ArgumentParser, default: KernelOptions, *, data_required: bool) -> None:
    add_data(
        parser,
        DATA if data_required else f"{DATA} (default: samples of a two-class mixture)",
        required=data_required,
    )
    add_flag(parser, "raw", "take the data as read, not centred and scaled")
    add_network(parser, default.activations)
    parser.add_argument("--kind", choices=("ck", "ntk"), default=default.kind, help="which kernel (default ck)")
    parser.add_argument("--weight-std", type=float, default=default.weight_std, help="standard deviation of weights")
    parser.add_argument("--bias-std", type=float, default=default.bias_std, help="standard deviation of biases")
    add_flag(parser, "uncentered", "do not subtract the activations' means")
    parser.add_argument(
        "--input-scaling",
        choices=("unit", "fan_in"),
        default=default.input_scaling,
        help="K_0 is X Xᵀ or X Xᵀ/p (default unit)",
    )
    parser.add_argument("--tau0", type=float, help="scale of the inputs in units of K_0 (default: that of the data)")
    kept = "all" if default.samples is None else default.samples
    parser.add_argument("--samples", type=int, default=default.samples, help=f"rows taken at random (default {kept})")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of the choice (default 0)")
    add_quiet(parser)
    add_json(parser)


def _shared(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "data": args.data,
        "activations": args.activations,
        "kind": args.kind,
        "weight_std": args.weight_std,
        "bias_std": args.bias_std,
        "centered": not args.uncentered,
        "input_scaling": args.input_scaling,
        "tau0": args.tau0,
        "samples": args.samples,
        "raw": args.raw,
        "seed": args.seed,
        "label_column": args.label_column,
    }


def _add_kernel(commands: Any) -> None:
    parser = add_command(
        commands,
        "kernel",
        examples=KERNEL_EXAMPLES,
        help="compute the exact kernel of a data set and write it to a .npy file",
        description="Reads data, computes CK or NTK of the infinitely wide network, and writes an (n, n) array.",
    )
    _add_shared(parser, KernelOptions(), data_required=True)
    parser.add_argument(
        "--dtype", choices=("float64", "float32"), default="float64", help="of the entries (default float64)"
    )
    parser.add_argument("--out", required=True, type=Path, help="the .npy file")
    parser.set_defaults(run=_kernel)


def _add_equivalent(commands: Any) -> None:
    parser = add_command(
        commands,
        "equivalent",
        examples=EQUIVALENT_EXAMPLES,
        help="what a network sees in a data set: coefficients, and the error of every form of the equivalent",
        description="Prints the coefficients layer by layer, and ‖K − K̃‖/‖K‖ of each form against the exact kernel.",
    )
    _add_shared(parser, EquivalentOptions(), data_required=True)
    parser.set_defaults(run=_equivalent)


def _add_spectrum(commands: Any) -> None:
    default = SpectrumOptions()
    parser = add_command(
        commands,
        "spectrum",
        examples=SPECTRUM_EXAMPLES,
        help="predict bulk, outliers and alignments of a kernel, beside the exact kernel's",
        description="From the population (a two-class mixture, or estimated from labelled data) without sampling.",
    )
    _add_shared(parser, default, data_required=False)
    parser.add_argument(
        "--features", type=int, default=default.features, help="dimension of the mixture (default 1000)"
    )
    parser.add_argument(
        "--covariance",
        choices=("scalar", "diagonal", "full"),
        default=default.covariance,
        help="structure of the covariances estimated from data (default scalar)",
    )
    parser.add_argument("--figure", type=Path, help="write a picture, e.g. spectrum.png or .svg")
    parser.set_defaults(run=_spectrum)


def _kernel(args: argparse.Namespace) -> int:
    options = KernelOptions(**_shared(args), dtype=args.dtype)
    options.validate()
    check_place(args.out, "--out", (".npy",))
    with stages(3, quiet=args.quiet or args.json) as progress:
        kernel, outcome = run_kernel(options, progress)
        progress.enter("write")
        outcome["bytes"] = analysis_report.write_array(args.out, kernel)
    outcome["file"] = str(args.out)
    if args.json:
        print_json(args, outcome)
    else:
        print(f"{analysis_report.kernel_text(outcome)}\nwritten: {args.out}")
    return 0


def _equivalent(args: argparse.Namespace) -> int:
    options = EquivalentOptions(**_shared(args))
    options.validate()
    with stages(2 + len(FORMS), quiet=args.quiet or args.json) as progress:
        outcome = run_equivalent(options, progress)
    if args.json:
        print_json(args, outcome)
    else:
        print(analysis_report.equivalent_text(outcome))
    return 0


def _spectrum(args: argparse.Namespace) -> int:
    options = SpectrumOptions(**_shared(args), features=args.features, covariance=args.covariance)
    options.validate()
    check_place(args.figure, "--figure", (".png", ".svg", ".pdf"))
    with stages(4, quiet=args.quiet or args.json) as progress:
        outcome, limit, eigenvalues = run_spectrum(options, progress)
    if args.figure is not None:
        analysis_report.write_figure(args.figure, limit, eigenvalues)
        outcome["figure"] = str(args.figure)
    if args.json:
        print_json(args, outcome)
        return 0
    print(analysis_report.spectrum_text(outcome))
    if args.figure is not None:
        print(f"\nwritten: {args.figure}")
    return 0
