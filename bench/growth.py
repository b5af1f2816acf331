"""How a figure grows with the size of a store, from what was measured at a few sizes.

It is a judgement of noisy numbers, not a fit: what changes by less than a quarter does not grow; what changes
by no more than the logarithm of the size, give or take a quarter, grows like the height of a trie; the rest
is told apart by how much of the change the last step to a larger store brought.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal

Growth = Literal["flat", "logarithmic", "linear"]

# What machines that others use make of one and the same figure.
_NOISE: Final = 1.25


def trend(sizes: Sequence[float], figures: Sequence[float]) -> tuple[float, Growth] | None:
    """Return how a figure changes from the smallest size to the largest.

    Args:
        sizes: Ascending, above 1.
        figures: What was measured at each.

    Returns:
        The last figure over the first, and how it grows; where the ratio is below one, how its inverse does.
        None where there is nothing to compare: fewer than two sizes, or a figure that is not above zero.
    """
    if len(sizes) < 2 or min(figures) <= 0:
        return None
    ratio = figures[-1] / figures[0]
    return ratio, _growth(sizes, figures if ratio >= 1 else [1 / figure for figure in figures])


def _growth(sizes: Sequence[float], figures: Sequence[float]) -> Growth:
    change = figures[-1] / figures[0]
    if change <= _NOISE:
        return "flat"
    logarithms = [math.log(size) for size in sizes]
    by_logarithm, by_size = logarithms[-1] / logarithms[0], sizes[-1] / sizes[0]
    if change <= _NOISE * by_logarithm:
        return "logarithmic"
    if len(sizes) == 2:
        return "linear" if change > math.sqrt(by_logarithm * by_size) else "logarithmic"
    between = (_last_share(logarithms) + _last_share(sizes)) / 2
    return "linear" if _last_share(figures) > between else "logarithmic"


def _last_share(figures: Sequence[float]) -> float:
    """Return how much of the whole change the last step brought."""
    return (figures[-1] - figures[-2]) / (figures[-1] - figures[0])
