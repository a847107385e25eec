"""Which step functions a match may use: shapes of equally spaced levels, or free ones."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rmtntk._validation import check_choice, check_integer

__all__ = ["FAMILIES", "Family", "family_of"]

FAMILIES = ("{-1,0,1}", "{1,0,1}", "{0,1}", "mixed")
_MOST = 8


@dataclass(frozen=True)
class Family:
    """Shapes a layer may have (levels at amplitude one, all of `levels` pieces), or `free` levels."""

    levels: int
    shapes: tuple[tuple[float, ...], ...]
    free: bool

    @property
    def odd_shapes(self) -> tuple[tuple[float, ...], ...]:
        """Those that can be odd."""
        return tuple(q for q in self.shapes if all(a == -b for a, b in zip(q, q[::-1], strict=True)))

    @property
    def even_shapes(self) -> tuple[tuple[float, ...], ...]:
        """Those that can be even; with an even number of levels one piece less than the family has."""
        shapes = self.shapes
        if self.levels % 2 == 0 and len(shapes) > 1:
            shapes = _all_shapes(self.levels - 1)
        return tuple(q for q in shapes if len(q) % 2 == 1 and q == q[::-1])

    def __str__(self) -> str:
        if self.free:
            return f"{self.levels} free levels"
        return " or ".join("{" + ",".join(f"{q:g}" for q in shape) + "}" for shape in self.shapes)


def family_of(levels: int | None, spacing: str, family: str | Sequence[float] | None) -> Family:
    """Check the options of `match` and return the family."""
    check_choice(spacing, "spacing", ("equal", "free"))
    if levels is not None:
        levels = check_integer(levels, "levels", low=2, high=_MOST)
    if family is None or family == "mixed":
        count = levels or 3
        return Family(count, _all_shapes(count), spacing == "free")
    shape = _parse(family)
    if spacing == "free":
        raise ValueError(f'`family` must be None with spacing="free" (the levels are what is sought), got {family!r}')
    if levels is not None and levels != len(shape):
        raise ValueError(
            f"`levels` must be {len(shape)}, the number of pieces of family={family!r}, or not given; got {levels}"
        )
    return Family(len(shape), (shape,), False)


def _all_shapes(count: int) -> tuple[tuple[float, ...], ...]:
    """Equally spaced: rising, centred so that it can be odd; and falling before it rises, up to reflection."""
    rising = tuple(j - 0.5 * (count - 1) for j in range(count))
    valleys = tuple(tuple(float(abs(j - bottom)) for j in range(count)) for bottom in range(1, (count + 1) // 2))
    return (rising, *valleys)


def _parse(family: str | Sequence[float]) -> tuple[float, ...]:
    if isinstance(family, str):
        number = r"\s*[+-]?\d+(?:\.\d*)?\s*"
        if not re.fullmatch(r"\{" + number + "(?:," + number + r")*\}", family.replace("\N{MINUS SIGN}", "-")):
            names = ", ".join(repr(name) for name in FAMILIES)
            raise ValueError(
                f"`family` must be one of {names}, other levels in braces from left to right such as '{{-1,0,2}}', or "
                f"None for all that are allowed, got {family!r}"
            )
        shape = tuple(float(item) for item in family.replace("\N{MINUS SIGN}", "-").strip("{}").split(","))
    elif isinstance(family, Sequence):
        shape = tuple(float(item) for item in family)
    else:
        raise TypeError(f"`family` must be a string, a sequence of levels or None, got {family!r}")
    if not 2 <= len(shape) <= _MOST:
        raise ValueError(f"`family` must have 2 to {_MOST} levels, got {len(shape)}: {family!r}")
    if any(a == b for a, b in itertools.pairwise(shape)):
        raise ValueError(f"`family` must change at every threshold, got {family!r}")
    return shape
