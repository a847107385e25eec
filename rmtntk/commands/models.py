"""``rmtntk predict`` and ``rmtntk info``."""

import argparse
from typing import Any

from rmtntk import activations as activation_module
from rmtntk import report as report_module
from rmtntk.commands._parser import add_command, add_data, add_json
from rmtntk.commands._record import print_json
from rmtntk.data import load
from rmtntk.ternary import TernaryNetwork
from rmtntk.workflow import describe_environment

__all__ = ["INFO_EXAMPLES", "PREDICT_EXAMPLES", "add"]

PREDICT_EXAMPLES = (
    "runs/mnist/model.npz --data mnist5k",
    "runs/small/model.npz --data new.csv --label-column kind --out-of-range clip --json",
)
INFO_EXAMPLES = ("", "runs/mnist/model.npz", "--json")


def add(commands: Any) -> None:
    """Add both commands."""
    predict = add_command(
        commands, "predict", examples=PREDICT_EXAMPLES, help="label data with a model made by compress"
    )
    predict.add_argument("model", help="a model file")
    add_data(predict, "raw data, as compress takes it")
    predict.add_argument(
        "--out-of-range",
        choices=("error", "clip"),
        default="error",
        help="for models of --input-bits: what becomes of inputs outside their range (default error)",
    )
    add_json(predict)
    predict.set_defaults(run=_predict)
    info = add_command(
        commands, "info", examples=INFO_EXAMPLES, help="versions, threads, activations, or what is in a model file"
    )
    info.add_argument("model", nargs="?", help="a model file")
    add_json(info)
    info.set_defaults(run=_info)


def _predict(args: argparse.Namespace) -> int:
    model = TernaryNetwork.load(args.model)
    rows = load(args.data, label_column=args.label_column).x
    labels = model.predict(rows, out_of_range=args.out_of_range).tolist()
    if args.json:
        print_json(args, {"labels": labels})
    else:
        print("\n".join(str(label) for label in labels))
    return 0


def _info(args: argparse.Namespace) -> int:
    if args.model is not None:
        fields: dict[str, Any] = TernaryNetwork.load(args.model).report()
    else:
        fields = {**describe_environment(), "activations": list(activation_module.names())}
    if args.json:
        print_json(args, fields)
    else:
        print(report_module.fields_text(fields))
    return 0
