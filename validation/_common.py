"""What the scripts share: where results go, and what they ran on."""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy

import rmtntk


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options every script has."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--quick", action="store_true", help="smaller sizes, for continuous integration")
    result.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results", help="folder for JSON and figures"
    )
    result.add_argument("--seed", type=int, default=0)
    return result


def save(out: Path, name: str, args: argparse.Namespace, content: dict[str, Any]) -> Path:
    """Write the results with versions, options and date."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    header = {
        "script": name,
        "command": Path(sys.argv[0]).name,
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
        "date": time.strftime("%Y-%m-%d"),
        "versions": {
            "rmtntk": rmtntk.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "numba": numba.__version__,
        },
        "threads": rmtntk.get_num_threads(),
    }
    header["options"].pop("out", None)
    path.write_text(json.dumps({**header, **content}, indent=2, default=_plain) + "\n", encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(type(value).__name__)
