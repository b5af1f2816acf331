"""What ``bench.scale`` fills a store with, and what it then asks of it: a stream, never a list of all pairs.

Ten million pairs as Python objects take more memory than what is measured, so nothing here holds them: the
generators of keys are walked as often as the keys are needed.  They are deterministic: the same count gives
the same keys in every process and on every machine.  Each yields exactly as many keys as it is asked for,
strictly ascending.

A workload makes more keys than it loads.  Those held back lie among the others as the kind of key has it, and
are the new pairs of the commits that are measured.
"""

from collections.abc import Callable, Container, Iterator
from functools import partial
from hashlib import shake_128
from itertools import islice, pairwise
from random import Random
from typing import Final, NamedTuple

from bench.data import LOAD_BATCH_PAIRS, PROOF_KEYS, Columns

_CELL_KEYS: Final = 1024
_PREFIX_BYTES: Final = 64
_PREFIXES: Final = 4
# Below so many files a folder has no folders.
_FEW_FILES: Final = 12
_MOST_FILES: Final = 24
_MOST_FOLDERS: Final = 12
# A folder below so many others holds all its files itself, so that no path is longer than a key may be.
_DEEPEST: Final = 9
_WORDS: Final = """
    account archive article backup batch billing book branch build cache camera chapter client cloud
    common config contract core course daily data design device document draft engine export family
    figure filter final garden history holiday house image import index invoice kernel kitchen lecture
    letter library main manual map market meeting memory message model module month music network notes
    office order page parser patch payment photo picture plan project proof protocol query recipe record
    release report request research result review sample schedule script search server session sketch
    source storage summary system table target template test thesis ticket tools travel tutorial utility
    vector video week
""".split()  # noqa: SIM905 - a hundred words read better so
_ENDINGS: Final = """
    .py .js .ts .rs .c .h .md .txt .json .yaml .html .css .png .jpg .pdf .csv .xml .docx
""".split()  # noqa: SIM905 - as above


def uniform_keys(count: int, key_bytes: int = 32) -> Iterator[bytes]:
    """Yield keys as a hash would make them.

    The key space is cut into cells of about a thousand keys, and within its cell a key may be anywhere, so
    that only a cell needs to be sorted and the trie has the shape that hashed keys give it.  A key has 16
    bytes at least.
    """
    cells = -(-count // _CELL_KEYS)
    for cell in range(cells):
        in_cell = count * (cell + 1) // cells - count * cell // cells
        low, high = (cell << 64) // cells, ((cell + 1) << 64) // cells
        block = shake_128(b"cell" + cell.to_bytes(8, "big")).digest(in_cell * key_bytes)
        yield from sorted(
            _between(low, high, block[at : at + key_bytes]) for at in range(0, len(block), key_bytes)
        )


def _between(low: int, high: int, random_bytes: bytes) -> bytes:
    """Return random bytes with their first eight brought into [low, high), evenly."""
    first = low + (int.from_bytes(random_bytes[:8], "big") * (high - low) >> 64)
    return first.to_bytes(8, "big") + random_bytes[8:]


def counters(count: int) -> Iterator[bytes]:
    """Yield 0, 1, 2, ... as 8 big-endian bytes: rows with a serial number."""
    return (number.to_bytes(8, "big") for number in range(count))


def prefixed_counters(count: int) -> Iterator[bytes]:
    """Yield counters behind one of four prefixes of 64 bytes: the tables of one database in one store."""
    prefixes = sorted(shake_128(b"prefix%d" % number).digest(_PREFIX_BYTES) for number in range(_PREFIXES))
    for number, prefix in enumerate(prefixes):
        share = count * (number + 1) // _PREFIXES - count * number // _PREFIXES
        yield from (prefix + counter for counter in counters(share))


def file_paths(count: int) -> Iterator[bytes]:
    """Yield the paths of the files of a tree as people have them, each of at most 252 bytes.

    A folder's content follows from its path alone, so that only the folders on the way down to one file are
    in memory.  It holds some files, and divides the rest at random among some folders; with a million files
    the usual path has eight parts and ninety bytes.
    """
    return _files_below("", count, 0)


def _files_below(folder: str, count: int, depth: int) -> Iterator[bytes]:
    chances, few = Random(folder), count <= _FEW_FILES or depth == _DEEPEST
    here = count if few else min(count, chances.randint(0, _MOST_FILES))
    below = count - here
    cuts = sorted(chances.randint(0, below) for _ in range(chances.randint(1, _MOST_FOLDERS - 1)))
    # How many files are below each name: none for a file.  A folder's ends with a slash, which sorts it.
    names: dict[str, int] = {}
    for low, high in pairwise([0, *cuts, below]):
        if high > low:
            names[_new_name(chances, names, ["/"])] = high - low
    for _ in range(here):
        names[_new_name(chances, names, _ENDINGS)] = 0
    for name, files in sorted(names.items()):
        if files:
            yield from _files_below(folder + name, files, depth + 1)
        else:
            yield (folder + name).encode()


def _new_name(chances: Random, taken: Container[str], endings: list[str]) -> str:
    while True:
        name, kind = chances.choice(_WORDS), chances.random()
        if kind >= 2 / 3:
            name += f"_{chances.randrange(10_000):04}"
        elif kind >= 1 / 3:
            name += "-" + chances.choice(_WORDS)
        name += chances.choice(endings)
        if name not in taken:
            return name


KINDS: Final[dict[str, Callable[[int], Iterator[bytes]]]] = {
    "uniform": uniform_keys,
    # The end of a hash, as accounts have it.
    "addresses": partial(uniform_keys, key_bytes=20),
    "file paths": file_paths,
    "long prefixes": prefixed_counters,
    "counters": counters,
}
# How often each commit is made in one process.
ROUNDS: Final = 3
# How many range proofs are measured.
_PROOFS: Final = 30
_COMMIT_PAIRS: Final = 10_000
# A small or heavy store gets commits of a tenth of it at most.
_COMMIT_SHARE: Final = 10
# A batch of heavy values is cut here.  It is what a transaction keeps in memory.
_BATCH_BYTES: Final = 1 << 26
_SEED: Final = 1


class Workload(NamedTuple):
    """The pairs of one store: the keys are one of ``KINDS``, and values have so many bytes, at least 1."""

    kind: str
    keys: int
    value_bytes: int

    @property
    def commit_pairs(self) -> int:
        """How many pairs a commit has."""
        return min(_COMMIT_PAIRS, -(-self.keys // _COMMIT_SHARE))

    @property
    def _all_keys(self) -> int:
        return self.keys + ROUNDS * self.commit_pairs

    def _places(self) -> list[int]:
        """Return where the keys are that are held back, and as many others, in random order."""
        count = min(2 * ROUNDS * self.commit_pairs, self._all_keys)
        return Random(_SEED).sample(range(self._all_keys), count)

    def loaded_keys(self) -> Iterator[bytes]:
        """Yield the keys of the store, ascending."""
        held_back = set(self._places()[: ROUNDS * self.commit_pairs])
        every = enumerate(KINDS[self.kind](self._all_keys))
        return (key for place, key in every if place not in held_back)

    def batches(self) -> Iterator[Columns]:
        """Yield the keys and values of the store as a bulk load takes them, ascending."""
        size = max(1, min(LOAD_BATCH_PAIRS, _BATCH_BYTES // self.value_bytes))
        keys, number = self.loaded_keys(), 0
        while some := list(islice(keys, size)):
            yield some, values(f"loaded {number}", len(some), self.value_bytes)
            number += 1

    def sample(self) -> "Sample":
        """Return what is asked of the store, in one walk over the keys."""
        places, new = self._places(), ROUNDS * self.commit_pairs
        beyond = max(0, self._all_keys - PROOF_KEYS)
        starts = [beyond * number // _PROOFS for number in range(_PROOFS)]
        wanted = {*places, *starts}
        found = {place: key for place, key in enumerate(KINDS[self.kind](self._all_keys)) if place in wanted}
        return Sample(
            new=[found[place] for place in places[:new]],
            present=[found[place] for place in places[new:]],
            starts=[found[place] for place in starts],
        )


class Sample(NamedTuple):
    """Keys that a store lacks and keys that it has, in random order, and where ranges start, ascending."""

    new: list[bytes]
    present: list[bytes]
    starts: list[bytes]


def values(name: str, count: int, value_bytes: int) -> list[bytes]:
    """Return random values; another name gives others."""
    block = shake_128(name.encode()).digest(count * value_bytes)
    return [block[at : at + value_bytes] for at in range(0, count * value_bytes, value_bytes)]
