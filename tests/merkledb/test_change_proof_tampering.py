"""A change proof that was tampered with is rejected, or says the truth nevertheless."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from merkledb import Branch, ChangeProof, Database, InvalidProof, Reason, Scheme, VerifiedChanges
from tests.merkledb.test_range_proof_tampering import (
    BRANCHES,
    CHILDREN,
    PATHS,
    RANGES,
    UNSOUND,
    mutated,
    tellings,
)
from tests.support import oracle
from tests.support.change_proof_tamperings import (
    CHANGE_TABLE,
    EARLY_ENDS,
    GONE,
    NEW,
    OLD,
    TRUE,
    honest_change,
)
from tests.support.databases import new_database
from tests.support.merkledb_strategies import changes, contents, near_keys, ranges, schemes
from tests.support.proof_verdicts import change_rejection
from tests.support.range_proof_tamperings import END, SCHEME, START, Case, honest
from tests.support.thoroughness import amount


@pytest.fixture(scope="module")
def local() -> Iterator[Database]:
    """A database that holds the old content; no test changes it."""
    with new_database(OLD, SCHEME) as database:
        yield database


def test_the_table_starts_from_the_proof_that_its_docstring_tells_of(local: Database) -> None:
    case = honest_change()
    assert case.pairs == {START: b"d" * 40, b"\x21\x77": b"", GONE[0]: None, GONE[1]: None, END: b"h" * 31}
    assert case.proof.boundary == honest().proof.boundary
    assert case.verify_beside(local).complete


@pytest.mark.parametrize("name", CHANGE_TABLE)
def test_a_tampering_is_rejected_with_its_reason(local: Database, name: str) -> None:
    tamper, reason = CHANGE_TABLE[name]
    with pytest.raises(InvalidProof) as caught:
        tamper(honest_change()).verify_beside(local)
    assert caught.value.reason is reason, caught.value


def test_every_reason_has_a_tampering() -> None:
    assert {reason for _, reason in CHANGE_TABLE.values()} == set(Reason)


@pytest.mark.parametrize("name", TRUE)
def test_what_is_needless_but_true_is_accepted_and_applied(name: str) -> None:
    case = TRUE[name](honest_change())
    assert isinstance(case.proof, ChangeProof)
    assert oracle.untruth_of(case.proof, OLD, NEW, SCHEME, START, END) is None
    with new_database(OLD, SCHEME) as copy:
        copy.apply(case.verify_beside(copy))
        after = {key: value for key, value in OLD.items() if not oracle.in_range(key, START, END)}
        assert copy.tip_root == oracle.root_of(after | oracle.pairs_in(NEW, START, END), SCHEME)
        copy.check()


@pytest.mark.parametrize("name", EARLY_ENDS)
def test_a_proof_may_end_at_any_key_and_is_applied_up_to_there(name: str) -> None:
    case = EARLY_ENDS[name](honest_change())
    with new_database(OLD, SCHEME) as copy:
        verified = case.verify_beside(copy)
        assert isinstance(verified, VerifiedChanges)
        assert not verified.complete
        assert verified.end == case.proof.end
        copy.apply(verified)
        kept = {key: OLD[key] for key in OLD if not oracle.in_range(key, case.start, verified.end)}
        assert copy.tip_root == oracle.root_of(kept | oracle.pairs_in(NEW, case.start, verified.end), SCHEME)
        copy.check()


def test_limits_that_are_just_met_are_no_reason_to_reject(local: Database) -> None:
    case = honest_change()
    case._replace(max_keys=len(case.proof.keys), max_bytes=len(case.proof.encode())).verify_beside(local)


@pytest.mark.parametrize("max_keys", range(1, 6))
def test_an_honest_proof_cut_off_anywhere_is_accepted(local: Database, max_keys: int) -> None:
    verified = honest_change(max_keys=max_keys).verify_beside(local)
    assert (len(verified), verified.complete) == (max_keys, max_keys == 5)


# What a mutation may put into a proof: keys and values that are true somewhere else are the best lies.
KEYS = near_keys(sorted({*OLD, *NEW}))
NEW_VALUES = st.none() | st.sampled_from(sorted({*OLD.values(), *NEW.values()})) | st.binary(max_size=40)
OLD_NODES = list(oracle.nodes_of(oracle.build(OLD, SCHEME)))
ANY_CHILDREN = CHILDREN | st.tuples(st.integers(0, 15), st.sampled_from([node.id for node in OLD_NODES]))
ANY_BRANCHES = BRANCHES | st.sampled_from([Branch(*node.opened()) for node in OLD_NODES])
DIGESTS = st.none() | st.sampled_from([SCHEME.digest(value) for value in (*OLD.values(), *NEW.values())])


@st.composite
def mutated_changes(draw: st.DrawFn, case: Case) -> Case:
    """The case with a change dropped, added, replaced, repeated or moved, or only half of it replaced."""
    keys, values = case.proof.keys, case.proof.values
    field = draw(st.integers(0, 2)) if keys else 0
    if field == 0:
        pairs = draw(mutated(tuple(zip(keys, values, strict=False)), st.tuples(KEYS, NEW_VALUES)))
        return case.with_proof(keys=tuple(key for key, _ in pairs), values=tuple(value for _, value in pairs))
    at = draw(st.integers(0, len(keys) - 1))
    if field == 1:
        return case.with_proof(keys=(*keys[:at], draw(KEYS), *keys[at + 1 :]))
    return case.with_proof(values=(*values[:at], draw(NEW_VALUES), *values[at + 1 :]))


@st.composite
def mutated_boundaries(draw: st.DrawFn, boundary: tuple[Branch, ...]) -> tuple[Branch, ...]:
    if not boundary or draw(st.booleans()):
        return draw(mutated(boundary, ANY_BRANCHES))
    at = draw(st.integers(0, len(boundary) - 1))
    changed: dict[str, st.SearchStrategy[Any]] = {
        "path": PATHS,
        "digest": DIGESTS,
        "children": mutated(boundary[at].children, ANY_CHILDREN),
    }
    field = draw(st.sampled_from([*changed, "children"]))
    branch = boundary[at]._replace(**{field: draw(changed[field])})
    return (*boundary[:at], branch, *boundary[at + 1 :])


@st.composite
def mutated_cases(draw: st.DrawFn) -> Case:
    """An honest case with one to three mutations, and mostly in order again."""
    start, end = draw(st.sampled_from(RANGES))
    case = honest_change(start, end, draw(st.none() | st.integers(1, 4)))
    for _ in range(draw(st.integers(1, 3))):
        field = draw(st.integers(0, 5))
        if field == 0:
            case = case.with_proof(end=draw(st.none() | KEYS))
        elif field < 3:
            case = draw(mutated_changes(case))
        else:
            case = case.with_proof(boundary=draw(mutated_boundaries(case.proof.boundary)))
    if draw(st.integers(0, 3)) == 0:
        return case
    case = case.with_pairs(dict(sorted(case.pairs.items()))).with_boundary(*case.proof.boundary)
    is_cut = case.proof.end != case.end
    return case.with_proof(end=max(case.pairs)) if is_cut and case.pairs and draw(st.booleans()) else case


@pytest.mark.slow
@given(case=mutated_cases())
@settings(max_examples=amount(1000, soak=50_000))
def test_a_mutated_proof_is_never_accepted_when_it_is_untrue(local: Database, case: Case) -> None:
    assert isinstance(case.proof, ChangeProof)
    try:
        case.verify_beside(local)
    except InvalidProof as error:
        event(f"rejected: {error.reason}")
        return
    event("accepted as it was" if case.proof == honest_change(case.start, case.end).proof else "accepted")
    assert oracle.untruth_of(case.proof, OLD, NEW, SCHEME, case.start, case.end) is None


@given(data=st.data())
@settings(max_examples=amount(200, soak=8_000))
def test_no_edit_of_the_bytes_makes_a_lie_acceptable(local: Database, data: st.DataObject) -> None:
    start, end, max_keys = data.draw(st.sampled_from([(START, END, None), (None, END, 3), (START, None, 2)]))
    encoded = honest_change(start, end, max_keys).proof.encode()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(encoded)))
        dropped = data.draw(st.integers(0, 35))
        added = data.draw(st.binary(max_size=3) | st.sampled_from([encoded[at:], encoded[at : at + 33]]))
        encoded = encoded[:at] + added + encoded[at + dropped :]
    assert_harmless(local, encoded, start, end)


def assert_harmless(local: Database, data: bytes, start: bytes | None, end: bytes | None) -> None:
    """Fail when altered bytes of a proof are accepted and are not the truth."""
    try:
        proof = ChangeProof.decode(data)
        assert proof.encode() == data
        local.verify_changes(proof, oracle.root_of(NEW, SCHEME), start, end)
    except InvalidProof:
        return
    assert oracle.untruth_of(proof, OLD, NEW, SCHEME, start, end) is None


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_no_flipped_bit_makes_a_lie_acceptable(local: Database, part: int) -> None:
    encoded = honest_change().proof.encode()
    for at in range(part, len(encoded), 2):
        for bit in range(8):
            altered = encoded[:at] + bytes([encoded[at] ^ 1 << bit]) + encoded[at + 1 :]
            assert_harmless(local, altered, START, END)


@pytest.mark.slow
@given(data=st.data(), scheme=schemes(), new=contents(min_size=1, max_size=10))
@settings(max_examples=amount(200, soak=12_000))
def test_a_trie_told_with_stubs_is_accepted_exactly_when_they_hide_no_key_of_the_range(
    data: st.DataObject, scheme: Scheme, new: dict[bytes, bytes]
) -> None:
    # What the telling leaves out is deleted, and the old content may hold any of it, so that the places where
    # a stub must not hang are those where local branches stood.
    old = oracle.changed(new, data.draw(changes(sorted(new))))
    trie = oracle.build(new, scheme)
    assert trie is not None
    telling = data.draw(tellings(trie, b"", [oracle.path_of(key, scheme) for key in sorted(new)]))
    start, end = data.draw(ranges(sorted({*old, *new})))
    proof = telling.change_proof(old, new, start, end, scheme)
    extra = data.draw(st.lists(near_keys(sorted(new)), max_size=2))
    needless = {key: None for key in extra if oracle.in_range(key, start, end) and key not in {*old, *new}}
    proof = with_deletions(proof, needless)
    with new_database(old, scheme) as local:
        reason = change_rejection(local, proof, trie.id, start, end)
    event(f"rejected: {reason}" if reason else "accepted")
    is_sound = telling.is_sound(oracle.Bounds.of_keys(start, end, scheme))
    assert reason is None if is_sound else reason in UNSOUND


def with_deletions(proof: ChangeProof, deletions: dict[bytes, None]) -> ChangeProof:
    merged = dict(sorted({**dict(zip(proof.keys, proof.values, strict=True)), **deletions}.items()))
    return proof._replace(keys=tuple(merged), values=tuple(merged.values()))
