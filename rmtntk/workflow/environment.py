"""What a run ran on."""

import platform
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numba
import numpy as np
import scipy

from rmtntk._threads import get_num_threads
from rmtntk._version import __version__

__all__ = ["EXTRAS", "describe_environment", "versions"]

EXTRAS = {
    "data": ("mlxtend",),
    "plot": ("matplotlib", "jinja2"),
    "progress": ("tqdm",),
    "store": ("zarr",),
    "distributed": ("zarr", "dask", "distributed"),
    "sklearn": ("scikit-learn",),
    "completion": ("argcomplete",),
}
_MODULES = {"scikit-learn": "sklearn"}  # where they are not called as their distribution


def versions() -> dict[str, str]:
    """Versions that digits may depend on."""
    return {
        "rmtntk": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
    }


def describe_environment() -> dict[str, Any]:
    """Versions, threads, processor and installed extras, without touching the machine's state."""
    extras = {}
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if find_spec(_MODULES.get(name, name)) is None]
        extras[extra] = (
            "missing: " + ", ".join(missing) if missing else ", ".join(_with_version(name) for name in packages)
        )
    return {
        **versions(),
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "threads": get_num_threads(),
        "extras": extras,
    }


def _with_version(package: str) -> str:
    return f"{package} {metadata.version(package)}"
