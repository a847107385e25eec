"""``rmtntk verify`` and ``rmtntk match``."""

import argparse
from typing import Any

from rmtntk import activations as activation_module
from rmtntk import report as report_module
from rmtntk._progress import stages
from rmtntk.commands._parser import DATA, add_command, add_data, add_json, add_levels, add_network, add_quiet
from rmtntk.commands._record import print_json
from rmtntk.commands._settings import integers
from rmtntk.data import Scaling, load
from rmtntk.matching import METHODS, match
from rmtntk.network import Network
from rmtntk.ternary import TernaryNetwork
from rmtntk.workflow import CompressionOptions, VerificationOptions, run_model_check, run_verification

__all__ = ["MATCH_EXAMPLES", "VERIFY_EXAMPLES", "add"]

VERIFY_EXAMPLES = (
    "",
    "--activations tanh,tanh --sizes 128,256,512 --draws 4",
    "runs/mnist/model.npz --data mnist5k",
)
MATCH_EXAMPLES = (
    "--activations relu,relu --tau0 1",
    '--activations relu --family "{-1,0,1}" --objective ntk --json',
    "--activations tanh,tanh --method data --data digits.npz",
)


def add(commands: Any) -> None:
    """Add both commands."""
    _add_verify(commands)
    _add_match(commands)


def _add_verify(commands: Any) -> None:
    default = VerificationOptions()
    parser = add_command(
        commands,
        "verify",
        examples=VERIFY_EXAMPLES,
        help="check the theory on growing data, or a model file",
        description="Without a model: measures how fast kernels approach their equivalents as n = p grows. With one: "
        "checks the file and recomputes its match; with --data also compares kernels.",
    )
    parser.add_argument("model", nargs="?", help="a model file")
    add_data(parser, "raw data to compare the model's kernels on", required=False)
    add_network(parser, default.activations)
    parser.add_argument(
        "--sizes",
        type=integers,
        default=default.sizes,
        metavar="LIST",
        help="n = p (default 256,512,1024,2048)",
    )
    parser.add_argument("--draws", type=int, default=default.draws, help="data sets per size (default 2)")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of the data (default 0)")
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_verify)


def _add_match(commands: Any) -> None:
    parser = add_command(
        commands,
        "match",
        examples=MATCH_EXAMPLES,
        help="find step activations with the kernels of a network",
        description="Prints thresholds and levels layer by layer; exit status 1 if there are none.",
    )
    add_network(parser, CompressionOptions().activations)
    parser.add_argument("--weight-std", type=float, default=1.0, help="standard deviation of weights (default 1)")
    parser.add_argument(
        "--tau0", type=float, default=1.0, help="sqrt of the mean squared norm of the inputs (default 1)"
    )
    parser.add_argument("--method", choices=METHODS, default="tight", help="data needs --data (default tight)")
    add_levels(parser)
    parser.add_argument("--family", help='levels such as "{-1,0,1}" or "{1,0,1}" (default: all that are allowed)')
    parser.add_argument("--objective", choices=("ck", "ntk", "both"), default="ck", help="what must agree (default ck)")
    add_data(parser, f"for --method data: {DATA}", required=False)
    parser.add_argument("--widths", type=integers, metavar="LIST", help="for --method data: width of every layer")
    add_json(parser)
    parser.set_defaults(run=_match)


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
        print_json(args, outcome)
    else:
        print(text)
    return 0 if outcome["passed"] else 1


def _match(args: argparse.Namespace) -> int:
    net = Network(activation_module.parse(args.activations), weight_std=args.weight_std)
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
    if args.json:
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
        print_json(args, fields)
    else:
        for k, act in enumerate(found.activations):
            print(f"layer {k + 1}: {act}")
        print(f"residual {found.residual:.2e}, excess {found.excess:.4g}: {found.message}")
    return 0 if found.feasible else 1
