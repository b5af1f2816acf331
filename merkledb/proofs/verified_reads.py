"""Reads that are compared with the root which they belong to: of all pairs by a fold, of some by proofs.

What is read for its own sake is checked for form alone, so a damaged disk, or a defect, can make it say a
wrong value, or none.  Here a wrong pair, or one that is missing, is ``CorruptDatabase``.

    by a fold     all pairs, each once; the root tells at the end, and nothing but the values is needed
    by proofs     any range, block by block; each pair is shown to be right before it is yielded
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from merkledb.errors import CorruptDatabase, InvalidProof
from merkledb.formats.proof import RangeProof
from merkledb.formats.scheme import Scheme
from merkledb.history.rows import FIRST_ROWS, WINDOW_GROWTH, Row, Rows
from merkledb.kernel.choice import kernel
from merkledb.kernel.interface import AnyFold
from merkledb.kernel.pure_fold import Branches
from merkledb.storage.store import key_of_row
from merkledb.trie.trie import Trie

# A stretch, or a block, ends at either: enough pairs to fold fast, few enough bytes to hardly count as
# memory.
_STRETCH_PAIRS: Final = 4096
_STRETCH_BYTES: Final = 16 << 20

Pair: TypeAlias = tuple[bytes, bytes]
Corrupt: TypeAlias = Callable[[str], CorruptDatabase]


def stretches(rows: Iterable[Row]) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield keys and values of rows in stretches."""
    keys: list[bytes] = []
    values: list[bytes] = []
    size = 0
    for row, value in rows:
        keys.append(key_of_row(row))
        values.append(value)
        size += len(value)
        if len(keys) == _STRETCH_PAIRS or size >= _STRETCH_BYTES:
            yield keys, values
            keys, values, size = [], [], 0
    if keys:
        yield keys, values


def feed(fold: AnyFold, scheme: Scheme, keys: list[bytes], values: list[bytes], corrupt: Corrupt) -> Branches:
    """Fold pairs that were read; return the branches that closed.

    Raises:
        CorruptDatabase: No store has these keys one after the other.
    """
    if len(max(keys, key=len)) > scheme.max_key_bytes:
        raise corrupt(f"after key 0x{keys[0].hex()} is one that is too long")
    try:
        return fold.feed(kernel().leaves(scheme, keys, values))
    except ValueError as error:
        raise corrupt(f"after key 0x{keys[0].hex()} keys are out of order") from error


def folded_blocks(rows: Rows, root: bytes, scheme: Scheme, corrupt: Corrupt) -> Iterator[Iterable[Pair]]:
    """Yield all pairs, ascending, block by block, and compare their root at the end.

    Args:
        rows: The rows of a state.
        root: The state's root.
        scheme: The state's scheme.
        corrupt: Makes an error of what is wrong.

    Raises:
        CorruptDatabase: After the last pair, unless they make the root.
    """
    fold = kernel().fold(scheme)
    for keys, values in stretches(rows.ascending(None, None, FIRST_ROWS)):
        feed(fold, scheme, keys, values, corrupt)
        yield zip(keys, values, strict=True)
    found, _ = fold.finish()
    if found != root:
        raise corrupt(f"what is read at root {root.hex()} makes {found.hex()}: do not use it")


def proved_blocks(
    trie: Trie, rows: Rows, start: bytes | None, end: bytes | None, *, reverse: bool
) -> Iterator[Iterable[Pair]]:
    """Yield the pairs of [start, end] in the order of their keys, or in reverse, each block after its proof.

    Args:
        trie: A state's.
        rows: The state's.
        start: The smallest key, inclusive; None for no bound.
        end: The largest key, inclusive; None for no bound.
        reverse: Yield the largest key first.

    Raises:
        CorruptDatabase: A block is not what the root says of it; none of its pairs was yielded.
    """
    low, high, last = start, end, None
    for block, is_last in _blocks(rows, start, end, reverse=reverse):
        if reverse:
            low = start if is_last else block[-1][0]
            # The range of a block ends at a key, so it ends at the smallest of the block before, once more.
            require_pairs(trie, [*block[::-1], *([last] if last else [])], low, high)
            high, last = low, block[-1] if block else None
        else:
            high = end if is_last else block[-1][0]
            require_pairs(trie, block, low, high)
            low = None if high is None else high + b"\0"
        yield block


def _blocks(
    rows: Rows, start: bytes | None, end: bytes | None, *, reverse: bool
) -> Iterator[tuple[list[Pair], bool]]:
    """Yield the pairs of [start, end] in blocks, in their order or in reverse, and whether it is the last."""
    # Who reads may want one pair or all, so the first block is small, and the next ones grow.
    most, size = FIRST_ROWS, 0
    block: list[Pair] = []
    for row, value in rows.descending(start, end) if reverse else rows.ascending(start, end, FIRST_ROWS):
        key = key_of_row(row)
        if (start is not None and key < start) if reverse else (end is not None and key > end):
            break
        if len(block) == most or size >= _STRETCH_BYTES:
            yield block, False
            block, size, most = [], 0, min(WINDOW_GROWTH * most, _STRETCH_PAIRS)
        block.append((key, value))
        size += len(value)
    yield block, True


def require_pairs(trie: Trie, pairs: list[Pair], low: bytes | None, high: bytes | None) -> None:
    """Raise CorruptDatabase unless ``pairs``, ascending, are what a trie's root says of [low, high]."""
    path_of = trie.scheme.codec.path
    boundary = trie.boundary(None if low is None else path_of(low), None if high is None else path_of(high))
    proof = RangeProof(tuple(key for key, _ in pairs), tuple(value for _, value in pairs), high, boundary)
    require_true(trie, proof, low, high)


def require_true(trie: Trie, proof: RangeProof, low: bytes | None, high: bytes | None) -> None:
    """Raise CorruptDatabase unless a proof that was made here of [low, high] holds."""
    try:
        kernel().verify_range(proof, trie.root, low, high, trie.scheme, None, None)
    except InvalidProof as error:
        first, last = ("no bound" if bound is None else f"key 0x{bound.hex()}" for bound in (low, high))
        difference = f"what is read from {first} to {last} at root {trie.root.hex()} does not belong to it"
        raise trie.corrupt(f"{difference}: {error}") from error
