"""``rmtntk compress``."""

import argparse
from pathlib import Path
from typing import Any

from rmtntk import activations as activation_module
from rmtntk import report as report_module
from rmtntk._progress import stages
from rmtntk.commands._parser import add_command, add_data, add_json, add_levels, add_network, add_quiet
from rmtntk.commands._record import record
from rmtntk.commands._settings import integers
from rmtntk.matching import METHODS
from rmtntk.packing import PACKINGS
from rmtntk.workflow import CompressionOptions, run_compression
from rmtntk.workflow.compression import STAGES

__all__ = ["EXAMPLES", "add"]

EXAMPLES = (
    "--data mnist5k --out runs/mnist",
    "--data digits.npz --activations tanh,tanh --widths 4000,2000 --out runs/digits",
    "--data mnist5k --levels 4 --input-bits 8 --readout-bits 8 --out runs/small",
    "--config run.toml --seed 1 --out runs/seed1",
)


def add(commands: Any) -> None:
    """Add the command."""
    default = CompressionOptions()
    parser = add_command(
        commands,
        "compress",
        examples=EXAMPLES,
        help="replace a network on real data by a ternary one, and check that their kernels agree",
        description="Reads data, matches ternary activations, builds and fits the networks, checks the kernels, "
        "and writes model.npz, report.json and report.html.",
    )
    add_data(parser)
    parser.add_argument("--out", required=True, type=Path, help="folder for model.npz, report.json, report.html")
    add_network(parser, default.activations)
    parser.add_argument(
        "--widths",
        type=integers,
        metavar="LIST",
        help="width of every layer (default 2000, the last one 1000)",
    )
    parser.add_argument("--sparsity", type=float, default=default.sparsity, help="share of zero weights (default 0.9)")
    parser.add_argument("--method", choices=METHODS, default=default.method, help="how activations are matched")
    add_levels(parser)
    parser.add_argument("--input-bits", type=int, metavar="BITS", help="round inputs to integers of 1 to 8 bits")
    parser.add_argument("--readout", choices=("ridge", "logistic"), default=default.readout, help="(default ridge)")
    parser.add_argument(
        "--readout-bits",
        type=int,
        choices=(8, 2),
        help="round the readout of ternary networks (default: float64, which dense ones keep)",
    )
    parser.add_argument(
        "--packing",
        choices=("auto", *PACKINGS),
        default=default.packing,
        help="how weights are stored (default: smallest)",
    )
    parser.add_argument(
        "--alpha",
        type=float,
        help="penalty of the readout (default: generalised cross-validation, for logistic held-out samples)",
    )
    parser.add_argument(
        "--test-fraction", type=float, default=default.test_fraction, help="held-out share (default 0.2)"
    )
    parser.add_argument(
        "--kernel-samples",
        type=int,
        default=default.kernel_samples,
        help="samples for the kernel check (default 1000)",
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of split and weights (default 0)")
    add_quiet(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    depth = len(activation_module.parse(args.activations))
    args.widths = args.widths or (2000,) * (depth - 1) + (1000,)
    options = CompressionOptions(
        data=args.data,
        activations=args.activations,
        widths=args.widths,
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
        result.report.update(record(args))
        paths = report_module.write(result, args.out)
    if args.json:
        print(report_module.to_json(result.report))
        return 0
    print(report_module.as_text(result.report))
    if options.readout_bits is not None:
        print(f"\nreadouts: {options.readout_bits} bits for ternary weights, float64 for dense networks")
    print("\nwritten: " + ", ".join(str(path) for path in paths))
    return 0
