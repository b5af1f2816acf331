"""What ``bench.scale`` measured: as a document for programs, as tables for people, and as part of a page."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import click

from bench.figures import Grid, number, short
from bench.growth import trend
from bench.plan import USUAL_VALUE_BYTES, Plan
from bench.quantity import Measured, Quantity
from bench.workload import Workload

# What is decided, not measured, does not grow.
_GIVEN: Final = frozenset(
    {
        Quantity.KEYS,
        Quantity.KEY_BYTES,
        Quantity.VALUE_BYTES,
        Quantity.PROOF_PAIRS,
        Quantity.COMMIT_PAIRS,
    }
)
# The measured part of a document is between these lines.
_BEGIN: Final = "<!-- measured: begin -->\n"
_END: Final = "<!-- measured: end -->\n"


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
    plan, measured = results.plan, results.measured
    yield size_grid(plan.sizes, [measured[each] for each in plan.by_size()])
    if plan.distribution_keys:
        kinds, lengths = plan.by_kind(), plan.by_value()
        title = f"Keys of other kinds, values of {USUAL_VALUE_BYTES} bytes"
        yield _grid(title, [each.kind for each in kinds], [measured[each] for each in kinds])
        heads = [_length(each.value_bytes) for each in lengths]
        yield _grid("Values of other lengths, uniform keys", heads, [measured[each] for each in lengths])


def size_grid(sizes: Sequence[int], columns: Sequence[Measured]) -> Grid:
    """Return the table of stores of several sizes, with how each figure grows."""
    grid = _grid(
        f"Stores of uniform keys, values of {USUAL_VALUE_BYTES} bytes", list(map(short, sizes)), columns
    )
    rows = [(name, [*cells, _growth(Quantity(name), sizes, columns)]) for name, cells in grid.rows]
    return Grid(grid.title, [*grid.heads, "growth"], rows)


def _growth(quantity: Quantity, sizes: Sequence[int], columns: Sequence[Measured]) -> str:
    found = None if quantity in _GIVEN else trend(sizes, [column[quantity] for column in columns])
    return str(found or "")


def _grid(title: str, heads: list[str], columns: Sequence[Measured]) -> Grid:
    named = [quantity for quantity in Quantity if any(quantity in column for column in columns)]
    return Grid(title, heads, [(name, [_cell(column.get(name)) for column in columns]) for name in named])


def _cell(figure: float | None) -> str:
    return "-" if figure is None else number(figure)


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
        raise click.UsageError(f"the document has no lines {_BEGIN.strip()} and, behind it, {_END.strip()}")
    return f"{before}{begin}\n{tables}\n{end}{after}"
