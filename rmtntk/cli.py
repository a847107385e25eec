"""The command line: parse, call, print. Exit status 0: done; 1: a check failed or nothing feasible; 2: bad input."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rmtntk import activations as activation_module
from rmtntk import analysis_report
from rmtntk import report as report_module
from rmtntk._progress import stages
from rmtntk._version import __version__
from rmtntk.data import Scaling, load
from rmtntk.errors import ConvergenceError, InfeasibleError
from rmtntk.matching import METHODS, match
from rmtntk.network import Network
from rmtntk.packing import PACKINGS
from rmtntk.ternary import TernaryNetwork
from rmtntk.workflow import (
    CompressionOptions,
    EquivalentOptions,
    KernelOptions,
    SpectrumOptions,
    VerificationOptions,
    describe_environment,
    run_compression,
    run_equivalent,
    run_kernel,
    run_model_check,
    run_spectrum,
    run_verification,
)
from rmtntk.workflow.analysis import FORMS
from rmtntk.workflow.compression import STAGES

__all__ = ["main"]

_EXAMPLES = """\
examples:
  rmtntk compress --data mnist5k --out runs/mnist
  rmtntk compress --data digits.npz --activations tanh,tanh --widths 4000,2000 --out runs/digits
  rmtntk predict runs/mnist/model.npz --data mnist5k
  rmtntk compress --data mnist5k --levels 4 --input-bits 8 --readout-bits 8 --out runs/small
  rmtntk match --activations relu,relu --tau0 1
  rmtntk kernel --data mnist5k --kind ntk --out ntk.npy
  rmtntk equivalent --data mnist5k --kind ntk
  rmtntk spectrum --samples 2000 --features 1000 --figure spectrum.png
  rmtntk verify
  rmtntk info
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        """Print one line, where argparse prints the usage too."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rmtntk",
        description="Kernels of wide networks, and ternary networks with the same kernels.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rmtntk {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_compress(commands)
    _add_kernel(commands)
    _add_equivalent(commands)
    _add_spectrum(commands)
    _add_verify(commands)
    _add_match(commands)
    _add_predict(commands)
    info = commands.add_parser("info", help="versions, threads, activations, or what is in a model file")
    info.add_argument("model", nargs="?", help="a model file")
    _add_json(info)
    info.set_defaults(run=_info)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def _add_network(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--activations",
        default=default,
        metavar="LIST",
        help=f"one per layer, e.g. relu,leaky_relu(0.1),tanh (default {default}; names: rmtntk info)",
    )


def _add_compress(commands: Any) -> None:
    default = CompressionOptions()
    parser = commands.add_parser(
        "compress",
        help="replace a network on real data by a ternary one, and check that their kernels agree",
        description="Reads data, matches ternary activations, builds and fits the networks, checks the kernels, "
        "and writes model.npz, report.json and report.html.",
    )
    parser.add_argument("--data", required=True, help="mnist5k, or a .npz, .csv, IDX or CIFAR-10 file or folder")
    parser.add_argument("--out", required=True, type=Path, help="folder for model.npz, report.json, report.html")
    _add_network(parser, default.activations)
    parser.add_argument(
        "--widths",
        type=_integers,
        metavar="LIST",
        help="width of every layer (default 2000, the last one 1000)",
    )
    parser.add_argument("--sparsity", type=float, default=default.sparsity, help="share of zero weights (default 0.9)")
    parser.add_argument("--method", choices=METHODS, default=default.method, help="how activations are matched")
    _add_levels(parser)
    parser.add_argument("--input-bits", type=int, metavar="BITS", help="round inputs to integers of 1 to 8 bits")
    parser.add_argument("--readout", choices=("ridge", "logistic"), default=default.readout, help="(default ridge)")
    parser.add_argument("--readout-bits", type=int, choices=(8, 2), help="round the readout (default: float64)")
    parser.add_argument(
        "--packing",
        choices=("auto", *PACKINGS),
        default=default.packing,
        help="how weights are stored (default: smallest)",
    )
    parser.add_argument("--alpha", type=float, help="ridge penalty (default: generalised cross-validation)")
    parser.add_argument(
        "--test-fraction", type=float, default=default.test_fraction, help="held-out share (default 0.2)"
    )
    parser.add_argument(
        "--kernel-samples",
        type=int,
        default=default.kernel_samples,
        help="samples for the kernel check (default 1000)",
    )
    parser.add_argument("--label-column", help="of a CSV file: name or index of the label column")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of split and weights (default 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_json(parser)
    parser.set_defaults(run=_compress)


def _add_levels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--levels", type=int, metavar="N", help="values an activation takes, 2 to 8 (default 3)")
    parser.add_argument("--spacing", choices=("equal", "free"), default="equal", help="of the levels (default equal)")


def _add_verify(commands: Any) -> None:
    default = VerificationOptions()
    parser = commands.add_parser(
        "verify",
        help="check the theory on growing data, or a model file",
        description="Without a model: measures how fast kernels approach their equivalents as n = p grows. With one: "
        "checks the file and recomputes its match; with --data also compares kernels.",
    )
    parser.add_argument("model", nargs="?", help="a model file")
    parser.add_argument("--data", help="raw data to compare the model's kernels on")
    parser.add_argument("--label-column", help="of a CSV file: name or index of the label column")
    _add_network(parser, default.activations)
    parser.add_argument(
        "--sizes",
        type=_integers,
        default=default.sizes,
        metavar="LIST",
        help="n = p (default 256,512,1024,2048)",
    )
    parser.add_argument("--draws", type=int, default=default.draws, help="data sets per size (default 2)")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of the data (default 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_json(parser)
    parser.set_defaults(run=_verify)


def _add_match(commands: Any) -> None:
    parser = commands.add_parser("match", help="find step activations with the kernels of a network")
    _add_network(parser, CompressionOptions().activations)
    parser.add_argument(
        "--tau0", type=float, default=1.0, help="sqrt of the mean squared norm of the inputs (default 1)"
    )
    parser.add_argument("--method", choices=METHODS, default="tight", help="data needs --data (default tight)")
    _add_levels(parser)
    parser.add_argument("--family", help='levels such as "{-1,0,1}" or "{1,0,1}" (default: all that are allowed)')
    parser.add_argument("--objective", choices=("ck", "ntk", "both"), default="ck", help="what must agree (default ck)")
    parser.add_argument("--data", help="for --method data: mnist5k, or a .npz, .csv, IDX or CIFAR-10 file or folder")
    parser.add_argument("--label-column", help="of a CSV file: name or index of the label column")
    parser.add_argument("--widths", type=_integers, metavar="LIST", help="for --method data: width of every layer")
    _add_json(parser)
    parser.set_defaults(run=_match)


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser("predict", help="label data with a model made by compress")
    parser.add_argument("model", help="a model file")
    parser.add_argument("--data", required=True, help="raw data, as compress takes it")
    parser.add_argument(
        "--out-of-range",
        choices=("error", "clip"),
        default="error",
        help="for models of --input-bits: what becomes of inputs outside their range (default error)",
    )
    parser.add_argument("--label-column", help="of a CSV file: name or index of the label column")
    _add_json(parser)
    parser.set_defaults(run=_predict)


def _add_analysis(parser: argparse.ArgumentParser, default: KernelOptions, *, data_required: bool) -> None:
    """Add what kernel, equivalent and spectrum share."""
    help_text = "mnist5k, or a .npz, .csv, IDX or CIFAR-10 file or folder"
    if not data_required:
        help_text += " (default: samples of a two-class mixture)"
    parser.add_argument("--data", required=data_required, help=help_text)
    parser.add_argument("--label-column", help="of a CSV file: name or index of the label column")
    parser.add_argument("--raw", action="store_true", help="take the data as read, not centred and scaled")
    _add_network(parser, default.activations)
    parser.add_argument("--kind", choices=("ck", "ntk"), default=default.kind, help="which kernel (default ck)")
    parser.add_argument("--weight-std", type=float, default=default.weight_std, help="standard deviation of weights")
    parser.add_argument("--bias-std", type=float, default=default.bias_std, help="standard deviation of biases")
    parser.add_argument("--uncentered", action="store_true", help="do not subtract the activations' means")
    parser.add_argument("--input-scaling", choices=("unit", "fan_in"), default=default.input_scaling)
    kept = "all" if default.samples is None else default.samples
    parser.add_argument("--samples", type=int, default=default.samples, help=f"rows taken at random (default {kept})")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of the choice (default 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_json(parser)


def _analysis(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "data": args.data,
        "activations": args.activations,
        "kind": args.kind,
        "weight_std": args.weight_std,
        "bias_std": args.bias_std,
        "centered": not args.uncentered,
        "input_scaling": args.input_scaling,
        "samples": args.samples,
        "raw": args.raw,
        "seed": args.seed,
        "label_column": args.label_column,
    }


def _add_kernel(commands: Any) -> None:
    parser = commands.add_parser(
        "kernel",
        help="compute the exact kernel of a data set and write it to a .npy file",
        description="Reads data, computes CK or NTK of the infinitely wide network, and writes an (n, n) array.",
    )
    _add_analysis(parser, KernelOptions(), data_required=True)
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--out", required=True, type=Path, help="the .npy file")
    parser.set_defaults(run=_kernel)


def _add_equivalent(commands: Any) -> None:
    parser = commands.add_parser(
        "equivalent",
        help="what a network sees in a data set: coefficients, and the error of every form of the equivalent",
        description="Prints the coefficients layer by layer, and ‖K − K̃‖/‖K‖ of each form against the exact kernel.",
    )
    _add_analysis(parser, EquivalentOptions(), data_required=True)
    parser.set_defaults(run=_equivalent)


def _add_spectrum(commands: Any) -> None:
    default = SpectrumOptions()
    parser = commands.add_parser(
        "spectrum",
        help="predict bulk, outliers and alignments of a kernel, beside the exact kernel's",
        description="From the population (a two-class mixture, or estimated from labelled data) without sampling.",
    )
    _add_analysis(parser, default, data_required=False)
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


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be integers separated by commas, got {text!r}") from None


def _compress(args: argparse.Namespace) -> int:
    depth = len(activation_module.parse(args.activations))
    options = CompressionOptions(
        data=args.data,
        activations=args.activations,
        widths=args.widths or (2000,) * (depth - 1) + (1000,),
        sparsity=args.sparsity,
        method=args.method,
        levels=args.levels,
        spacing=args.spacing,
        input_bits=args.input_bits,
        readout=args.readout,
        readout_bits=args.readout_bits,
        packing=args.packing,
        test_fraction=args.test_fraction,
        kernel_samples=args.kernel_samples,
        alpha=args.alpha,
        seed=args.seed,
        label_column=args.label_column,
    )
    options.validate()
    report_module.check_output(args.out)
    with stages(STAGES + 1, quiet=args.quiet or args.json) as progress:
        result = run_compression(options, progress)
        progress.enter("write report")
        paths = report_module.write(result, args.out)
    if args.json:
        print(report_module.to_json(result.report))
    else:
        print(report_module.as_text(result.report))
        print("\nwritten: " + ", ".join(str(path) for path in paths))
    return 0


def _place(path: Path | None, name: str, suffixes: tuple[str, ...]) -> None:
    """Check where a file is to go before anything is computed."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"`{name}` must end in {' or '.join(suffixes)}, got {path}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"`{name}` must be a file in an existing folder, got {path}")


def _kernel(args: argparse.Namespace) -> int:
    options = KernelOptions(**_analysis(args), dtype=args.dtype)
    options.validate()
    _place(args.out, "--out", (".npy",))
    with stages(3, quiet=args.quiet or args.json) as progress:
        kernel, outcome = run_kernel(options, progress)
        progress.enter("write")
        outcome["bytes"] = analysis_report.write_array(args.out, kernel)
    outcome["file"] = str(args.out)
    print(report_module.to_json(outcome) if args.json else analysis_report.kernel_text(outcome))
    if not args.json:
        print(f"written: {args.out}")
    return 0


def _equivalent(args: argparse.Namespace) -> int:
    options = EquivalentOptions(**_analysis(args))
    options.validate()
    with stages(2 + len(FORMS), quiet=args.quiet or args.json) as progress:
        outcome = run_equivalent(options, progress)
    print(report_module.to_json(outcome) if args.json else analysis_report.equivalent_text(outcome))
    return 0


def _spectrum(args: argparse.Namespace) -> int:
    options = SpectrumOptions(**_analysis(args), features=args.features, covariance=args.covariance)
    options.validate()
    _place(args.figure, "--figure", (".png", ".svg", ".pdf"))
    with stages(4, quiet=args.quiet or args.json) as progress:
        outcome, limit, eigenvalues = run_spectrum(options, progress)
    if args.figure is not None:
        analysis_report.write_figure(args.figure, limit, eigenvalues)
        outcome["figure"] = str(args.figure)
    print(report_module.to_json(outcome) if args.json else analysis_report.spectrum_text(outcome))
    if args.figure is not None and not args.json:
        print(f"\nwritten: {args.figure}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    if args.model is not None:
        default = VerificationOptions()
        names = ("activations", "sizes", "draws", "seed")
        given = [name for name in names if getattr(args, name) != getattr(default, name)]
        if given:
            raise ValueError(f"`--{given[0]}` is for the check on growing data, and must be left out with a model")
        model = TernaryNetwork.load(args.model)
        data = None if args.data is None else load(args.data, label_column=args.label_column).x
        outcome = run_model_check(model, data)
        text = report_module.model_check_text(outcome)
    else:
        if args.data is not None:
            raise ValueError("`--data` needs a model to check on it: rmtntk verify MODEL --data ...")
        options = VerificationOptions(args.activations, args.sizes, args.draws, args.seed)
        options.validate()
        with stages(len(set(options.sizes)), quiet=args.quiet or args.json) as progress:
            outcome = run_verification(options, progress)
        text = report_module.verification_text(outcome)
    if args.json:
        print(report_module.to_json(outcome))
    else:
        print(text)
    return 0 if outcome["passed"] else 1


def _match(args: argparse.Namespace) -> int:
    net = Network(activation_module.parse(args.activations))
    rows = None
    if args.data is not None:
        if args.method != "data":
            raise ValueError('`--data` is for --method data, the other methods look at "--tau0" only')
        data = load(args.data, label_column=args.label_column).x
        rows = args.tau0 * Scaling.fit(data).transform(data)
    elif args.method == "data":
        raise ValueError("`--method data` needs --data, the samples whose kernel it looks at")
    found = match(
        net, args.tau0, method=args.method, levels=args.levels, spacing=args.spacing, family=args.family,
        objective=args.objective, x=rows, widths=args.widths,
    )  # fmt: skip
    fields = {
        "feasible": found.feasible,
        "method": found.method,
        "objective": found.objective,
        "residual": found.residual,
        "excess": found.excess,
        "excess_bound": found.excess_bound,
        "risk": found.risk,
        "thresholds": [act.thresholds.tolist() for act in found.activations],
        "levels": [act.levels.tolist() for act in found.activations],
        "message": found.message,
    }
    if args.json:
        print(report_module.to_json(fields))
    else:
        for k, act in enumerate(found.activations):
            print(f"layer {k + 1}: {act}")
        print(f"residual {found.residual:.2e}, excess {found.excess:.4g}: {found.message}")
    return 0 if found.feasible else 1


def _predict(args: argparse.Namespace) -> int:
    model = TernaryNetwork.load(args.model)
    rows = load(args.data, label_column=args.label_column).x
    labels = model.predict(rows, out_of_range=args.out_of_range).tolist()
    if args.json:
        print(report_module.to_json({"labels": labels}))
    else:
        print("\n".join(str(label) for label in labels))
    return 0


def _info(args: argparse.Namespace) -> int:
    if args.model is not None:
        fields: dict[str, Any] = TernaryNetwork.load(args.model).report()
    else:
        fields = {**describe_environment(), "activations": list(activation_module.names())}
    if args.json:
        print(report_module.to_json(fields))
    else:
        print(report_module.fields_text(fields))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except (InfeasibleError, ConvergenceError) as error:
        return _fail(args.command, error, 1)
    except BrokenPipeError:  # the reader of our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _fail(args.command, error, 2)
    except MemoryError as error:
        return _fail(args.command, MemoryError(f"not enough memory: {error}; take smaller widths or fewer samples"), 2)
    except KeyboardInterrupt:
        print(f"rmtntk {args.command}: interrupted; nothing was written", file=sys.stderr)
        return 130


def _fail(command: str, error: Exception, status: int) -> int:
    print(f"rmtntk {command}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return status
