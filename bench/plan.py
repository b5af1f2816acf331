"""Which stores ``bench.scale`` measures."""

from typing import Final, NamedTuple

from bench.workload import KINDS, Workload

USUAL_VALUE_BYTES: Final = 32
# Lengths of values, and by how much fewer there are, so that no store takes more than a few gigabytes.
_VALUES: Final = ((8, 1), (USUAL_VALUE_BYTES, 1), (4096, 4), (1 << 20, 1000))


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
        return [Workload("uniform", size, USUAL_VALUE_BYTES) for size in self.sizes]

    def by_kind(self) -> list[Workload]:
        """Return the stores that differ in their keys."""
        kinds = KINDS if self.distribution_keys else ()
        return [Workload(kind, self.distribution_keys, USUAL_VALUE_BYTES) for kind in kinds]

    def by_value(self) -> list[Workload]:
        """Return the stores that differ in their values."""
        lengths = _VALUES if self.distribution_keys else ()
        return [
            Workload("uniform", -(-self.distribution_keys // fewer), value_bytes)
            for value_bytes, fewer in lengths
        ]

    def command(self) -> str:
        """Return the command that measures this."""
        sizes = "".join(f" --keys {size}" for size in self.sizes)
        return f"python -m bench.scale{sizes} --distribution-keys {self.distribution_keys} --runs {self.runs}"
