"""Hypothesis strategies for schemes, keys, values, contents, bounds and sequences of commits.

They love what breaks tries: the empty key, keys that are prefixes of each other, long shared paths,
leading zero bytes and bytes at either end of the alphabet, values on both sides of the 32 bytes from
where on a value is hashed, and so heavy that small subtrees are buckets, or none.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from hypothesis import strategies as st

from merkledb import Scheme

HASHERS: Final[tuple[Literal["blake3", "sha256"], ...]] = ("blake3", "sha256")
BRANCH_FACTORS = (2, 4, 16, 256)
SCHEMES = tuple(
    Scheme(hasher=hasher, branch_factor=factor) for hasher in HASHERS for factor in BRANCH_FACTORS
)

# The shortest limit of all schemes, so that every key fits into each of them.
MAX_KEY_BYTES = min(scheme.max_key_bytes for scheme in SCHEMES)

_LIKELY_BYTES = st.sampled_from([0x00, 0x01, 0x0F, 0x10, 0x61, 0x7F, 0x80, 0xF0, 0xFE, 0xFF])
_DEEP_PATHS = (bytes(20), bytes(MAX_KEY_BYTES - 2), b"a" * 31, b"\xff" * 40)


def schemes() -> st.SearchStrategy[Scheme]:
    return st.sampled_from(SCHEMES)


def short_keys() -> st.SearchStrategy[bytes]:
    """Keys from a small alphabet, so that many are prefixes of others or share all but a token."""
    return st.lists(_LIKELY_BYTES, max_size=4).map(bytes)


def keys() -> st.SearchStrategy[bytes]:
    deep = st.builds(lambda deep, tail: deep + tail[:2], st.sampled_from(_DEEP_PATHS), short_keys())
    zeros = st.builds(lambda count, tail: bytes(count) + tail, st.integers(0, 9), short_keys())
    anything = st.binary(max_size=33)
    longest = st.binary(min_size=MAX_KEY_BYTES, max_size=MAX_KEY_BYTES)
    return st.one_of(short_keys(), short_keys(), deep, zeros, anything, longest)


def values() -> st.SearchStrategy[bytes]:
    near_the_hash = st.builds(
        lambda byte, length: bytes([byte]) * length, st.integers(0, 3), st.sampled_from([31, 32, 33])
    )
    heavy = st.builds(
        lambda byte, length: bytes([byte]) * length,
        st.integers(0, 3),
        st.sampled_from([63, 64, 300, 511, 512, 600]),
    )
    return st.one_of(
        st.just(b""), st.binary(max_size=4), near_the_hash, st.binary(max_size=120), heavy, heavy
    )


def contents(*, min_size: int = 0, max_size: int = 24) -> st.SearchStrategy[dict[bytes, bytes]]:
    return st.dictionaries(keys(), values(), min_size=min_size, max_size=max_size)


@st.composite
def near_keys(draw: st.DrawFn, pool: Sequence[bytes]) -> bytes:
    """A key of the pool, or one right beside it, or any other."""
    if not pool or draw(st.integers(0, 7)) == 0:
        return draw(keys())
    key = draw(st.sampled_from(pool))
    change = draw(st.integers(0, 5))
    if change == 0 and len(key) < MAX_KEY_BYTES:
        return key + draw(st.sampled_from([b"\x00", b"\x01", b"\xff"]))
    if change == 1:
        return key[: draw(st.integers(0, len(key)))]
    if change == 2 and key:
        return key[:-1] + bytes([key[-1] ^ draw(st.sampled_from([1, 2, 0x10, 0x80]))])
    return key


@st.composite
def ranges(draw: st.DrawFn, pool: Sequence[bytes]) -> tuple[bytes | None, bytes | None]:
    """Bounds of a range, in order, each unbounded or on or near a key of the pool."""
    start, end = draw(st.none() | near_keys(pool)), draw(st.none() | near_keys(pool))
    if start is not None and end is not None and start > end:
        return end, start
    return start, end


class Limits(NamedTuple):
    """Limits of one proof; `max_bytes` is what it may take encoded."""

    max_keys: int
    max_bytes: int


def limits() -> st.SearchStrategy[Limits]:
    """Limits of which often the one, often the other, often none cuts a proof of a small store."""
    max_bytes = st.one_of(st.integers(1, 2000), st.integers(1000, 20_000), st.just(1 << 20))
    return st.builds(Limits, st.one_of(st.integers(1, 4), st.integers(1, 2048)), max_bytes)


@st.composite
def changes(draw: st.DrawFn, pool: Sequence[bytes]) -> dict[bytes, bytes | None]:
    """Changes of one commit: pairs to put, and keys, present or not, to delete."""
    return draw(st.dictionaries(near_keys(pool), st.one_of(st.none(), values()), max_size=10))


@st.composite
def commit_sequences(draw: st.DrawFn) -> list[dict[bytes, bytes | None]]:
    """Commits that return to the same few keys, so that branches come and go."""
    pool = draw(st.lists(keys(), min_size=1, max_size=12, unique=True))
    return draw(st.lists(changes(pool), min_size=1, max_size=6))
