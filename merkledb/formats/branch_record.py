"""The record of a branch, which is its row in the store; and weights, which say what branches have one.

    uvarint(number of children)                       1 byte, or 2 from 128 children on
    for each child, ascending:  token ‖ child id      33 bytes each: a child id sits at a fixed stride
    0x00, or 0x01 ‖ length ‖ digest                   the branch's own value
    the weights                                       one byte for each child, one for an own value

Up to the weights it is at once what the branch's id is hashed over, before the path.  The hash takes tokens
as uvarints, which differ from one byte only for tokens from 128 on; ``widened`` widens those.  What comes
from the disk is parsed here, and rejected with ``ValueError`` when it is not a record.

A *bucket* is a subtree that holds only a few small values.  Its branches are not stored: whoever needs one
reads the bucket's pairs, which lie side by side, and folds them.  At 32 bytes a value that leaves one row of
a branch for twelve pairs instead of one for three.

    weight of a value      1, and 1 more for every 64 bytes of it
    weight of a subtree    the sum of its values' weights
    bucket                 a subtree of at most MAX_WEIGHT

The weight follows from the content alone.  So all stores with the same pairs have the same rows, and where an
id stays the same, what is stored below it does too.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from merkledb.errors import PicklableError
from merkledb.formats.scheme import ID_BYTES, NO_VALUE, VALUE_HEADERS, Scheme, uvarint

# A scan of so much costs about as much as a lookup of one branch.
MAX_WEIGHT: Final = 8
# The weight of everything that is no bucket; as any weight, it fits into a byte.
HEAVY: Final = 255
_UNIT_BYTES: Final = 64
CHILD_BYTES: Final = 1 + ID_BYTES
COUNTS: Final = [uvarint(count) for count in range(257)]
TOKENS: Final = [bytes([token]) for token in range(256)]
# The record of a branch that has nothing yet.
NO_RECORD: Final = COUNTS[0] + NO_VALUE
# Yields the children, each as a tuple of one: token ‖ id.
iter_children: Final = Struct(f"{CHILD_BYTES}s").iter_unpack
_WEIGHTS: Final = bytes([*range(1, MAX_WEIGHT + 1), HEAVY])


class InvalidRecord(PicklableError, ValueError):
    """The row of one of several branches is no record.

    Args:
        number: The branch's.
        why: What is wrong.
    """

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


class Record(NamedTuple):
    """A parsed record: tokens of the children, their ids end to end with the tokens, and the digest.

    Attributes:
        tokens: The tokens of the children, ascending, one a byte.
        children: token ‖ id for each child, without a separator.
        digest: The digest of the branch's own value, or None.
        weights: The weight of what hangs under each token, one a byte, and that of the own value, if any.
    """

    tokens: bytes
    children: bytes
    digest: bytes | None
    weights: bytes

    def child_at(self, index: int) -> bytes:
        """Return the id of the child number ``index``, counted from zero."""
        return self.children[CHILD_BYTES * index + 1 : CHILD_BYTES * (index + 1)]

    def slots(self) -> list[tuple[int, bytes, int]]:
        """Return (token, id, weight) of every child, ascending."""
        pairs = zip(self.pairs(), self.weights, strict=False)
        return [(token, node_id, weight) for (token, node_id), weight in pairs]

    def pairs(self) -> list[tuple[int, bytes]]:
        """Return (token, id) of every child, ascending."""
        children = self.children
        return [
            (children[at], children[at + 1 : at + CHILD_BYTES]) for at in range(0, len(children), CHILD_BYTES)
        ]


def value_part(digest: bytes | None) -> bytes:
    """Return what stands after the children of a record."""
    return NO_VALUE if digest is None else VALUE_HEADERS[len(digest)] + digest


def encode_record(children: bytes, digest: bytes | None, weights: bytes) -> bytes:
    """Return the record of ``children`` (token ‖ id each, ascending), ``digest`` and weights."""
    return COUNTS[len(children) // CHILD_BYTES] + children + value_part(digest) + weights


def split_records(records: Iterable[bytes]) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """Return the tokens, the children, the value part and the weights of what are known to be records."""
    found = []
    for data in records:
        at, count = (1, data[0]) if data[0] < 128 else (2, data[0] - 128 + 128 * data[1])
        middle = at + CHILD_BYTES * count
        # As ``value_part_length`` says, without a call for each.
        end = middle + 1
        if data[middle:end] != NO_VALUE:
            end += 1 + int.from_bytes(data[end : end + 1])
        found.append((data[at:middle:CHILD_BYTES], data[at:middle], data[middle:end], data[end:]))
    return found


def value_part_length(data: bytes, at: int) -> int:
    """Return how many bytes the value part takes that begins at ``at``."""
    return 1 if data[at : at + 1] == NO_VALUE else 2 + int.from_bytes(data[at + 1 : at + 2])


def parse_record(data: bytes, branch_factor: int = 256) -> Record:
    """Return the parts of a record.

    Raises:
        ValueError: ``data`` is not a record, or one with tokens that no such branch has.
    """
    if len(data) < 2:  # The count, and that there is no value.
        raise ValueError("a record has at least two bytes")
    tokens, children, part, weights = split_records((data,))[0]
    # Where a record ends inside its children, nothing is left that could be a value part.
    digest = None if part == NO_VALUE else parse_value_part(part)
    if not are_ordered(tokens):
        raise ValueError("a record's tokens are out of order")
    if tokens and tokens[-1] >= branch_factor:
        raise ValueError("a record has a token that is none")
    if len(weights) != len(tokens) + (digest is not None):
        raise ValueError("a record has another number of weights")
    if weights.translate(None, _WEIGHTS):
        raise ValueError("a record has a weight that is none")
    return Record(tokens, children, digest, weights)


def pure_child_weight(data: bytes, token: int) -> int | None:
    """Return the weight of the child at ``token``; None when there is none.

    Raises:
        ValueError: ``data`` is not a record.
    """
    record = parse_record(data)
    at = record.tokens.find(token)
    return None if at < 0 else record.weights[at]


@lru_cache(maxsize=4096)
def are_ordered(tokens: bytes) -> bool:
    """Return whether tokens are strictly ascending; most branches near the top have the same ones, all."""
    return bytes(sorted(set(tokens))) == tokens


def parse_value_part(part: bytes) -> bytes | None:
    """Return the digest in what stands after the children of a record.

    Raises:
        ValueError: It is no such part.
    """
    if part == NO_VALUE:
        return None
    digest = part[2:]
    if len(digest) > ID_BYTES or part[:2] != VALUE_HEADERS[len(digest)]:
        raise ValueError("a record's digest has a wrong length")
    return digest


def widened(record: bytes) -> bytes:
    """Return what a record without weights contributes to its branch's id.

    The record itself, tokens from 128 on as uvarints.
    """
    tokens, children, part, _ = split_records((record,))[0]
    if not tokens or tokens[-1] < 128:
        return record
    starts = range(0, len(children), CHILD_BYTES)
    rows = [uvarint(children[at]) + children[at + 1 : at + CHILD_BYTES] for at in starts]
    return b"".join([COUNTS[len(tokens)], *rows, part])


def branch_id(scheme: Scheme, path: bytes, record: bytes) -> bytes:
    """Return the id of a branch."""
    _, _, _, weights = split_records((record,))[0]
    hashed = widened(record.removesuffix(weights))
    return scheme.hash_function(
        hashed + scheme.codec.bit_lengths[len(path)] + scheme.codec.pack(path)
    ).digest()


def weight_of(value: bytes) -> int:
    """Return the weight of one value."""
    weight = 1 + len(value) // _UNIT_BYTES
    return weight if weight <= MAX_WEIGHT else HEAVY


def weights_of(values: Sequence[bytes]) -> bytes:
    """Return the weights of values, one a byte."""
    if max(map(len, values), default=0) < _UNIT_BYTES:
        return b"\x01" * len(values)
    return bytes(map(weight_of, values))
