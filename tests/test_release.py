"""What a release says about itself in several places is the same everywhere."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

import rmtntk as rn
from rmtntk.workflow.environment import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "pyproject.toml"

pytestmark = pytest.mark.skipif(not PROJECT.exists(), reason="needs the source tree")


def requirements():
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    used = [
        *project["dependencies"],
        *(line for name, lines in extras.items() if name not in ("docs", "dev") for line in lines),
    ]
    return dict(
        re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line).groups()
        for line in used
        if not line.startswith("rmtntk[")
    )


def test_one_version():
    assert importlib.metadata.version("rmtntk") == rn.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (\S+)$", citation, re.MULTILINE).group(1) == rn.__version__
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] in ("Unreleased", rn.__version__)


def test_oldest_versions_are_the_lower_bounds():
    pins = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci/oldest.txt").read_text(encoding="utf-8"), re.MULTILINE)
    bounds = {name: (bound + ".0.0").split(".")[:3] for name, bound in requirements().items()}
    assert {name: pin.split(".")[:3] for name, pin in pins} == bounds


def test_every_part_is_in_all():
    extras = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = re.fullmatch(r"rmtntk\[([\w,]+)\]", extras["all"][0]).group(1).split(",")
    assert sorted(named) == sorted(set(extras) - {"all", "distributed", "test", "docs", "dev"})


def test_info_knows_the_extras():
    extras = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for name in set(extras) - {"all", "test", "docs", "dev"}:
        listed = {re.match(r"[\w-]+", line).group() for line in extras[name] if not line.startswith("rmtntk[")}
        assert listed <= set(EXTRAS[name])
    assert set(EXTRAS) == set(extras) - {"all", "test", "docs", "dev"}
