"""What ``bench.scale`` measures of which stores, as a document for programs and as tables for people."""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

import click

from bench.figures import Grid, number, short
from bench.workload import KINDS, Workload

Growth = Literal["flat", "logarithmic", "linear"]

# What machines that others use make of one and the same figure.
_NOISE: Final = 1.25

_USUAL_VALUE_BYTES: Final = 32
# Lengths of values, and by how much fewer there are, so that no store takes more than a few gigabytes.
_VALUES: Final = ((8, 1), (_USUAL_VALUE_BYTES, 1), (4096, 4), (1 << 20, 1000))
# The measured part of a document is between these lines.
_BEGIN: Final = "<!-- measured: begin -->\n"
_END: Final = "<!-- measured: end -->\n"


class Quantity(StrEnum):
    """A number that is measured of every store, in the order of a table."""

    KEYS = "keys"
    KEY_BYTES = "bytes of a key"
    VALUE_BYTES = "bytes of a value"
    LOAD_KEYS = "load, keys a second"
    LOAD_MEGABYTES = "load, MB a second"
    RAW_KEYS = "raw append, keys a second"
    LOAD_RATIO = "load / raw append"
    LOAD_MEMORY = "load, peak memory, MB"
    LOAD_ANONYMOUS = "load, peak anonymous memory, MB"
    STORE_BYTES = "store, bytes a key"
    STORE_VALUES = "of these, values"
    STORE_BRANCHES = "of these, branches"
    STORE_REST = "of these, all else"
    GET = "get, µs"
    PROOF_PAIRS = "range proof, pairs"
    PROVE = "range proof: prove, ms"
    ENCODE = "range proof: encode, ms"
    DECODE = "range proof: decode, ms"
    VERIFY = "range proof: verify, ms"
    APPLY = "range proof: apply durably, ms"
    PROOF_BYTES = "range proof, bytes a key"
    PROVE_ONE = "single proof: prove, µs"
    VERIFY_ONE = "single proof: verify, µs"
    BYTES_OF_ONE = "single proof, bytes"
    COMMIT_PAIRS = "commit, pairs"
    COMMIT_NEW = "commit of scattered new pairs, ms"
    COMMIT_CHANGED = "commit of scattered changed values, ms"
    SYNC_KEYS = "sync, keys a second"
    SYNC_MEGABYTES = "sync, MB a second"
    SYNC_RATIO = "sync / raw copy"
    SYNC_CLIENT_MEMORY = "sync, client's peak anonymous memory, MB"
    SYNC_SERVER_MEMORY = "sync, server's peak anonymous memory, MB"
    SYNC_WIRE = "sync, bytes on the wire a key"
    SYNC_STORE = "store after a sync, bytes a key"


Measured = dict[Quantity, float]
# What is decided, not measured, does not grow.
_GIVEN: Final = (
    Quantity.KEYS,
    Quantity.KEY_BYTES,
    Quantity.VALUE_BYTES,
    Quantity.PROOF_PAIRS,
    Quantity.COMMIT_PAIRS,
)


class Plan(NamedTuple):
    """What is measured.

    Attributes:
        sizes: The pairs in stores of uniform keys, ascending.
        distribution_keys: The pairs in stores of other keys and values; 0 for none of these stores.
        runs: How often each is measured.
    """

    sizes: tuple[int, ...]
    distribution_keys: int
    runs: int

    def by_size(self) -> list[Workload]:
        """Return the stores that differ in their size."""
        return [Workload("uniform", size, _USUAL_VALUE_BYTES) for size in self.sizes]

    def by_kind(self) -> list[Workload]:
        """Return the stores that differ in their keys."""
        kinds = KINDS if self.distribution_keys else ()
        return [Workload(kind, self.distribution_keys, _USUAL_VALUE_BYTES) for kind in kinds]

    def by_value(self) -> list[Workload]:
        """Return the stores that differ in their values."""
        lengths = _VALUES if self.distribution_keys else ()
        return [
            Workload("uniform", -(-self.distribution_keys // fewer), value_bytes)
            for value_bytes, fewer in lengths
        ]

    def workloads(self) -> list[Workload]:
        """Return all stores; one that is wanted twice comes once."""
        return list(dict.fromkeys([*self.by_size(), *self.by_kind(), *self.by_value()]))

    def command(self) -> str:
        """Return the command that measures this."""
        sizes = "".join(f" --keys {size}" for size in self.sizes)
        return f"python -m bench.scale{sizes} --distribution-keys {self.distribution_keys} --runs {self.runs}"


class Results(NamedTuple):
    """What was measured.

    Attributes:
        machine: Where.
        plan: What was asked for.
        measured: The medians for each store.
    """

    machine: str
    plan: Plan
    measured: dict[Workload, Measured]

    def document(self) -> dict[str, Any]:
        """Return the results for a program."""
        stores = [{**each._asdict(), "figures": figures} for each, figures in self.measured.items()]
        return {"machine": self.machine, **self.plan._asdict(), "stores": stores}

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Results":
        """Return the results that a document has."""
        plan = Plan(tuple(document["sizes"]), document["distribution_keys"], document["runs"])
        measured = {
            Workload(store["kind"], store["keys"], store["value_bytes"]): {
                Quantity(name): figure for name, figure in store["figures"].items()
            }
            for store in document["stores"]
        }
        return cls(document["machine"], plan, measured)


def grids(results: Results) -> Iterator[Grid]:
    """Yield the tables of what was measured."""
    plan = results.plan
    title = f"Stores of uniform keys, values of {_USUAL_VALUE_BYTES} bytes"
    columns = [results.measured[each] for each in plan.by_size()]
    sizes = _grid(title, [short(size) for size in plan.sizes], columns)
    rows = [(name, [*cells, _growth(Quantity(name), plan.sizes, columns)]) for name, cells in sizes.rows]
    yield Grid(sizes.title, [*sizes.heads, "growth"], rows)
    if plan.distribution_keys:
        kinds, lengths = plan.by_kind(), plan.by_value()
        title = f"Keys of other kinds, values of {_USUAL_VALUE_BYTES} bytes"
        yield _grid(title, [each.kind for each in kinds], [results.measured[each] for each in kinds])
        heads = [_length(each.value_bytes) for each in lengths]
        yield _grid(
            "Values of other lengths, uniform keys", heads, [results.measured[each] for each in lengths]
        )


def _grid(title: str, heads: list[str], columns: Sequence[Measured]) -> Grid:
    named = [quantity for quantity in Quantity if any(quantity in column for column in columns)]
    rows = [(name, [number(column[name]) if name in column else "-" for column in columns]) for name in named]
    return Grid(title, heads, rows)


def _growth(quantity: Quantity, sizes: Sequence[int], columns: Sequence[Measured]) -> str:
    """Return how a figure grows with the store; nothing where it is decided, not measured."""
    found = None if quantity in _GIVEN else trend(sizes, [column[quantity] for column in columns])
    return "" if found is None else f"{found[0]:.2g} times, {found[1]}"


def trend(sizes: Sequence[float], figures: Sequence[float]) -> tuple[float, Growth] | None:
    """Return how a figure changes from the smallest size to the largest.

    It is a judgement of noisy numbers, not a fit: what changes by less than a quarter does not grow; what
    changes by no more than the logarithm of the size, give or take a quarter, grows like the height of a
    trie; the rest is told apart by how much of the change the last step to a larger store brought.

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
    return ratio, _kind_of_growth(sizes, figures if ratio >= 1 else [1 / figure for figure in figures])


def _kind_of_growth(sizes: Sequence[float], figures: Sequence[float]) -> Growth:
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


def _length(value_bytes: int) -> str:
    for size, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if value_bytes >= size:
            return f"{value_bytes // size} {unit}"
    return f"{value_bytes} bytes"


def text(results: Results) -> str:
    """Return the results for a person at a terminal."""
    heading = f"{results.machine}\nmedians of {results.plan.runs} runs"
    return "\n\n".join([heading, *(grid.text() for grid in grids(results))])


def markdown(results: Results) -> str:
    """Return the results for a document."""
    heading = (
        f"Measured by `{results.plan.command()}` on {results.machine}. Each figure is the median of "
        f"{results.plan.runs} runs. MB are millions of bytes."
    )
    return "\n\n".join([heading, *(grid.markdown() for grid in grids(results))]) + "\n"


def replace_measured(document: str, tables: str) -> str:
    """Return a document with other tables between its marks.

    Raises:
        click.UsageError: It has not both marks, or not in this order.
    """
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise click.UsageError(f"the document has no lines {_BEGIN.strip()} and, after it, {_END.strip()}")
    return f"{before}{begin}\n{tables}\n{end}{after}"
