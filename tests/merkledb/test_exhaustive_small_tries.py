"""All small tries, all bounds, all lies: what a random search might miss, an enumeration cannot.

Exhaustive searches, each over every trie that can be made of a few keys (the empty key and prefixes of
each other among them) and every pair of bounds on or beside these keys:

- every claim that the range holds what it holds in any other of the tries, told with either trie's boundary;
- every way to tell the true trie with some of its subtrees as stubs, at their slots or deeper: these are
  all ways to reach the true root with true ids;
- every honest proof, at every limit of pairs, made by the database;
- every step from one of the tries to another, and every claim of what has changed in a range.

A soak searches all of this. Where there are thousands of tellings, changes or steps, an ordinary run takes
every third telling, every fourth old content and every fourth step, other ones for each scheme and weight.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator

import pytest

from merkledb import EMPTY_ROOT, ChangeProof, RangeProof, Reason, Scheme
from tests.support import oracle
from tests.support.databases import new_database
from tests.support.oracle import BruteForceVerifier, Node
from tests.support.proof_verdicts import Bound, Telling, boundary_of, change_rejection, rejection
from tests.support.thoroughness import sampled

pytestmark = pytest.mark.slow

SCHEMES = [Scheme("sha256", 2), Scheme("blake3", 4), Scheme("sha256", 16), Scheme("blake3", 256)]
SHORT, LONG = b"v", b"w" * 32
# So heavy that four pairs are a bucket, two of four, or none.
WEIGHTS = (SHORT, b"m" * 200, b"h" * 600)
# Neighbours that differ in the last bit, in the first, in a nibble; prefixes of each other; the empty key.
KEYS = (b"", b"\x00", b"\x00\x00", b"\x01", b"\x10", b"\x80")
ABSENT_BOUNDS = (b"\x00\x00\x00", b"\x00\x01", b"\x0f", b"\xff")

# Why a proof that keeps to all rules of form is rejected when it tells of another trie: without the pairs
# beside it a stub may lose its branch before the root shows the difference.
UNFAITHFUL = (Reason.WRONG_ROOT, Reason.STUB_NOT_DIRECT)


def all_bounds(keys: Iterable[bytes]) -> list[tuple[Bound, Bound]]:
    places: list[Bound] = [None, *sorted(keys)]
    return [(s, e) for s, e in itertools.product(places, places) if s is None or e is None or s <= e]


# --------------------------------------------------------------------------- claims of another content


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_claim_is_accepted_exactly_when_it_is_true(scheme: Scheme, part: int) -> None:
    worlds = list(oracle.worlds_over(KEYS[:5], [SHORT]))
    judge = BruteForceVerifier(worlds, scheme)
    tries = [oracle.build(world, scheme) for world in worlds]
    for start, end in all_bounds((*KEYS[:5], *ABSENT_BOUNDS[:2]))[part::4]:
        claims = [oracle.pairs_in(world, start, end) for world in worlds]
        boundaries = [boundary_of(trie, start, end, scheme) for trie in tries]
        for true_boundary, root in zip(boundaries, judge.worlds, strict=True):
            for told_boundary, pairs in zip(boundaries, claims, strict=True):
                is_true = judge.is_true(pairs, root, start, end)
                columns = tuple(pairs), tuple(pairs.values())
                reason = rejection(RangeProof(*columns, end, true_boundary), root, start, end, scheme)
                assert reason is None if is_true else reason in UNFAITHFUL
                if told_boundary != true_boundary:
                    proof = RangeProof(*columns, end, told_boundary)
                    assert rejection(proof, root, start, end, scheme) in UNFAITHFUL


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_an_altered_value_is_never_accepted(scheme: Scheme) -> None:
    worlds = list(oracle.worlds_over(KEYS[:4], [SHORT, LONG]))
    judge = BruteForceVerifier(worlds, scheme)
    for truth in worlds:
        root = oracle.root_of(truth, scheme)
        trie = oracle.build(truth, scheme)
        for start, end in all_bounds(KEYS[:4]):
            boundary = boundary_of(trie, start, end, scheme)
            for values in itertools.product([SHORT, LONG], repeat=len(oracle.pairs_in(truth, start, end))):
                pairs = dict(zip(oracle.pairs_in(truth, start, end), values, strict=True))
                proof = RangeProof(tuple(pairs), values, end, boundary)
                is_true = judge.is_true(pairs, root, start, end)
                assert rejection(proof, root, start, end, scheme) is (None if is_true else Reason.WRONG_ROOT)


# ---------------------------------------------------------------------- the true trie, told with stubs


def tellings(node: Node, slot: bytes, tokens: bytes) -> Iterator[Telling]:
    """Yield every way to tell a node and what lies below it; stubs in their slots or up to two deeper."""
    deeper = [bytes(more) for length in (0, 1, 2) for more in itertools.product(tokens, repeat=length)]
    for more in deeper:
        if slot or more:
            yield Telling(stubs=((slot + more, node.id),), in_slots=bool(slot) and not more)
    own = Telling(() if node.digest is None else (node.path,))
    children = sorted(node.children.items())
    parts = [list(tellings(child, node.path + bytes([token]), tokens)) for token, child in children]
    for chosen in itertools.product(*parts):
        yield functools.reduce(Telling.and_also, chosen, own)


@pytest.mark.parametrize(
    "keys", list(itertools.combinations(KEYS, 3)), ids=lambda keys: " ".join(k.hex() or "empty" for k in keys)
)
@pytest.mark.parametrize("scheme", SCHEMES[:3], ids=str)
def test_a_telling_of_the_true_trie_is_accepted_exactly_when_its_stubs_hang_in_their_slots_outside(
    scheme: Scheme, keys: tuple[bytes, ...]
) -> None:
    world = {key: SHORT + key for key in keys}
    trie = oracle.build(world, scheme)
    assert trie is not None
    tokens = bytes([0, scheme.branch_factor - 1])
    bounds = [
        (s, e, oracle.Bounds.of_keys(s, e, scheme)) for s, e in all_bounds((*keys, *ABSENT_BOUNDS[1:3]))
    ]
    for telling in sampled(list(tellings(trie, b"", tokens)), 3, SCHEMES.index(scheme)):
        for start, end, range_ in bounds:
            proof = telling.proof(world, start, end, scheme)
            reason = rejection(proof, trie.id, start, end, scheme)
            if telling.is_sound(range_):
                assert reason is None
                assert dict(zip(proof.keys, proof.values, strict=True)) == oracle.pairs_in(world, start, end)
            else:
                assert reason in (Reason.STUB_INSIDE_RANGE, Reason.STUB_NOT_DIRECT), proof


# --------------------------------------------------------------------------------- the same about changes


@pytest.mark.parametrize("value", WEIGHTS, ids=lambda value: f"{len(value)} bytes")
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_changes_to_another_content_are_accepted_exactly_when_it_is_the_same_in_the_range(
    scheme: Scheme, value: bytes
) -> None:
    keys = (b"", b"\x00", b"\x01") if scheme.branch_factor != 16 else KEYS[:4]
    worlds = list(oracle.worlds_over(keys, [value]))
    tries = [oracle.build(world, scheme) for world in worlds]
    bounds = all_bounds((*keys, b"\x00\x01")) if len(keys) == 3 else all_bounds(keys[1:3])
    boundaries = [[boundary_of(trie, start, end, scheme) for trie in tries] for start, end in bounds]
    with new_database(scheme=scheme) as database:
        for old in sampled(worlds, 4, WEIGHTS.index(value) + SCHEMES.index(scheme)):
            database.commit({key: old.get(key) for key in keys})
            for claimed, new in itertools.product(range(len(worlds)), repeat=2):
                root = oracle.root_of(worlds[new], scheme)
                for (start, end), boundary in zip(bounds, boundaries, strict=True):
                    changes = oracle.changes_between(old, worlds[claimed], start, end)
                    columns = tuple(changes), tuple(changes.values())
                    is_true = oracle.pairs_in(worlds[claimed], start, end) == oracle.pairs_in(
                        worlds[new], start, end
                    )
                    proof = ChangeProof(*columns, end, boundary[new])
                    reason = change_rejection(database, proof, root, start, end)
                    assert reason is None if is_true else reason in UNFAITHFUL
                    if boundary[claimed] != boundary[new]:
                        proof = ChangeProof(*columns, end, boundary[claimed])
                        assert change_rejection(database, proof, root, start, end) in UNFAITHFUL


@pytest.mark.parametrize(
    "keys", list(itertools.combinations(KEYS, 3)), ids=lambda keys: " ".join(k.hex() or "empty" for k in keys)
)
def test_a_change_telling_of_the_new_trie_is_accepted_exactly_when_its_stubs_hang_in_their_slots_outside(
    keys: tuple[bytes, ...],
) -> None:
    # What is not told is deleted: so whatever stood in the old trie must lend no stub a branch.
    scheme = SCHEMES[sum(map(sum, keys)) % 3]
    value = WEIGHTS[len(keys[1]) % 3]
    world = {key: value + key for key in keys}
    trie = oracle.build(world, scheme)
    assert trie is not None
    tokens = bytes([0, scheme.branch_factor - 1])
    bounds = [(s, e, oracle.Bounds.of_keys(s, e, scheme)) for s, e in all_bounds((*keys[:2], b"\x0f"))]
    others = {b"\x0f": value, b"\x0f\xff": b"y"}, {keys[1]: b"old", b"\x00\x01": value}
    olds = [world, {**world, **others[0]}, others[1]]
    with new_database(scheme=scheme) as database:
        for before, old in zip(({}, *olds), olds, strict=False):
            database.commit(oracle.changes_between(before, old))
            told = sampled(list(tellings(trie, b"", tokens)), 3, olds.index(old))
            for telling, (start, end, range_) in itertools.product(told, bounds):
                proof = telling.change_proof(old, world, start, end, scheme)
                reason = change_rejection(database, proof, trie.id, start, end)
                if telling.is_sound(range_):
                    assert reason is None
                    assert oracle.untruth_of(proof, old, world, scheme, start, end) is None
                else:
                    assert reason in (Reason.STUB_INSIDE_RANGE, Reason.STUB_NOT_DIRECT), proof


# ----------------------------------------------------------------------------------- the honest prover


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_proof_of_every_small_database_is_what_the_definition_says(scheme: Scheme, part: int) -> None:
    worlds = list(oracle.worlds_over(KEYS, [(LONG, *WEIGHTS)[part]]))
    bounds = all_bounds((*KEYS, *ABSENT_BOUNDS))
    with new_database(scheme=scheme) as database:
        for world in worlds[part::4]:
            changes: dict[bytes, bytes | None] = {key: world.get(key) for key in KEYS}
            assert database.commit(changes) == oracle.root_of(world, scheme)
            for (start, end), max_keys in itertools.product(bounds, (1, 2, 9)):
                expected = oracle.prove_range(world, scheme, start, end, max_keys)
                proof = database.prove_range(start, end, max_keys=max_keys)
                assert tuple(proof) == tuple(expected)
                assert rejection(proof, database.root, start, end, scheme) is None


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_step_between_two_small_databases_keeps_root_and_check(scheme: Scheme) -> None:
    worlds = [world for value in WEIGHTS for world in oracle.worlds_over(KEYS[:4], [value])]
    for number, before in enumerate(worlds):
        # A database of its own for each: a check reads all revisions, so many steps of one cost their square.
        with new_database(before, scheme) as database:
            for after in sampled(worlds, 4, number + SCHEMES.index(scheme)):
                database.commit({key: before.get(key) for key in KEYS[:4]})
                touched = {key: after.get(key) for key in KEYS[:4] if before.get(key) != after.get(key)}
                assert database.commit(touched) == oracle.root_of(after, scheme)
                database.check()
    assert oracle.root_of({}, scheme) == EMPTY_ROOT
