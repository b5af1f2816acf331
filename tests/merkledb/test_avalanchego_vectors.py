"""merkledb agrees with what avalanchego's own implementation produced (`tests/vectors/README.md`)."""

from collections.abc import Mapping

import pytest

import merkledb
from merkledb import Branch, ChangeProof, RangeProof, Scheme
from tests.support import oracle
from tests.support.databases import new_database
from tests.support.oracle import Bounds, PlainBranch, PlainScheme
from tests.support.vector_cases import (
    BigCase,
    ChangeCase,
    KeyCase,
    RangeCase,
    RootCase,
    big_cases,
    big_changes,
    change_cases,
    key_cases,
    range_cases,
    root_cases,
)

PROVEN = [case for case in range_cases() if case.refusal is None]
CHANGES = change_cases()
PROVEN_CHANGES = [case for case in CHANGES if case.refusal is None]
COMMIT_PAIRS = 20_000


def scheme_of(plain: PlainScheme) -> Scheme:
    return Scheme(hasher="sha256", branch_factor=plain.branch_factor)


def converted(
    scheme: PlainScheme,
    pairs: Mapping[bytes, bytes],
    start: bytes | None,
    end: bytes | None,
    nodes: tuple[PlainBranch, ...],
) -> RangeProof:
    """Say in our form what a proof of that format says: of its nodes keep what is outside the range."""
    boundary = Bounds.of_keys(start, end, scheme).clip_all(nodes)
    return RangeProof(tuple(pairs), tuple(pairs.values()), end, tuple(Branch(*branch) for branch in boundary))


@pytest.mark.parametrize("case", root_cases(), ids=lambda case: case.name)
def test_root_of_gives_every_root(case: RootCase) -> None:
    assert merkledb.root_of(case.contents, scheme_of(case.scheme)) == case.root


@pytest.mark.parametrize("case", root_cases(), ids=lambda case: case.name)
def test_a_database_has_every_root_that_its_keys_fit_into(case: RootCase) -> None:
    scheme = scheme_of(case.scheme)
    with new_database(scheme=scheme) as database:
        if max(map(len, case.contents), default=0) > scheme.max_key_bytes:
            with pytest.raises(merkledb.KeyTooLong) as caught:
                database.commit(case.contents)
            assert caught.value.limit == scheme.max_key_bytes
        else:
            assert database.commit(case.contents) == case.root
            database.check()


@pytest.mark.slow
@pytest.mark.parametrize("case", big_cases(), ids=lambda case: str(case.pairs))
def test_a_database_has_the_big_roots_after_deletions_and_replacements(case: BigCase) -> None:
    contents, deleted, replaced = big_changes(case.pairs)
    with new_database(scheme=scheme_of(case.scheme)) as database:
        for at in range(0, case.pairs, COMMIT_PAIRS):
            database.commit(dict(list(contents.items())[at : at + COMMIT_PAIRS]))
        assert database.root == case.root
        assert database.commit(dict.fromkeys(deleted)) == case.root_after_deletes
        assert database.commit(replaced) == case.root_after_replacements
        database.check()


@pytest.mark.parametrize("case", PROVEN, ids=lambda case: case.name)
def test_our_prover_carries_the_pairs_of_every_range_proof(case: RangeCase) -> None:
    with new_database(case.contents, scheme_of(case.scheme)) as database:
        proof = database.prove_range(case.start, case.end, max_keys=case.max_keys)
    assert dict(zip(proof.keys, proof.values, strict=True)) == case.pairs
    merkledb.verify_range(proof, case.root, case.start, case.end, scheme=scheme_of(case.scheme))


@pytest.mark.parametrize("case", PROVEN, ids=lambda case: case.name)
def test_our_verifier_accepts_every_range_proof_of_theirs(case: RangeCase) -> None:
    scheme = scheme_of(case.scheme)
    proof = converted(case.scheme, case.pairs, case.start, case.proven_end, case.nodes)
    verified = merkledb.verify_range(
        proof, case.root, case.start, case.end, scheme=scheme, max_keys=case.max_keys
    )
    assert dict(zip(verified.keys, verified.values, strict=True)) == case.pairs
    assert RangeProof.decode(proof.encode()) == proof


@pytest.mark.parametrize("case", PROVEN, ids=lambda case: case.name)
def test_our_prover_makes_exactly_their_range_proofs(case: RangeCase) -> None:
    theirs = converted(case.scheme, case.pairs, case.start, case.proven_end, case.nodes)
    with new_database(case.contents, scheme_of(case.scheme)) as database:
        assert database.prove_range(case.start, case.proven_end) == theirs


@pytest.mark.parametrize("case", [case for case in range_cases() if case.refusal], ids=lambda case: case.name)
def test_where_they_refuse_we_either_refuse_too_or_prove_the_empty_trie(case: RangeCase) -> None:
    with new_database(case.contents, scheme_of(case.scheme)) as database:
        if case.max_keys == 0:
            with pytest.raises(ValueError, match="max_keys"):
                database.prove_range(case.start, case.end, max_keys=0)
        else:
            assert database.prove_range(case.start, case.end) == RangeProof((), (), case.end, ())


@pytest.mark.parametrize("case", key_cases(), ids=lambda case: case.name)
def test_proofs_for_one_key_are_exactly_theirs_and_verify(case: KeyCase) -> None:
    scheme = scheme_of(case.scheme)
    pairs = {} if case.value is None else {case.key: case.value}
    theirs = converted(case.scheme, pairs, case.key, case.key, case.nodes)
    with new_database(case.contents, scheme) as database:
        assert database.prove(case.key) == theirs
    verified = merkledb.verify_range(theirs, case.root, case.key, case.key, scheme=scheme)
    assert dict(zip(verified.keys, verified.values, strict=True)) == pairs
    assert verified.complete


# -------------------------------------------------------------------------------------------- change proofs


def our_change_proof(case: ChangeCase) -> ChangeProof:
    """What our prover makes of the request that a case's proof answered."""
    with new_database(case.old, scheme_of(case.scheme)) as database:
        assert database.root == case.old_root
        for changes in case.commits:
            database.commit(changes)
        assert database.root == case.root
        return database.prove_changes(case.old_root, case.root, case.start, case.end, max_keys=case.max_keys)


def their_change_proof(case: ChangeCase) -> ChangeProof:
    """Say in our form what their proof says: of its nodes keep what is outside the range."""
    boundary = Bounds.of_keys(case.start, case.proven_end, case.scheme).clip_all(case.nodes)
    columns = tuple(case.changes), tuple(case.changes.values())
    return ChangeProof(*columns, case.proven_end, tuple(Branch(*branch) for branch in boundary))


def test_the_cases_hold_proofs_that_their_own_makers_rejected_or_crashed_on() -> None:
    assert len(CHANGES) == 26
    assert len([case for case in CHANGES if case.rejection]) == 5


@pytest.mark.parametrize("case", PROVEN_CHANGES, ids=lambda case: case.name)
def test_our_prover_carries_the_changes_of_every_change_proof(case: ChangeCase) -> None:
    proof = our_change_proof(case)
    assert dict(zip(proof.keys, proof.values, strict=True)) == case.changes
    if proof.end == case.proven_end:
        assert proof == their_change_proof(case)
    else:
        assert proof.end == case.end  # theirs ends at its last change though the range is done


@pytest.mark.parametrize("case", PROVEN_CHANGES, ids=lambda case: case.name)
def test_our_verifier_accepts_every_change_proof_of_theirs(case: ChangeCase) -> None:
    proof = their_change_proof(case)
    assert ChangeProof.decode(proof.encode()) == proof
    with new_database(case.old, scheme_of(case.scheme)) as copy:
        verified = copy.verify_changes(proof, case.root, case.start, case.end, max_keys=case.max_keys)
        assert dict(zip(verified.keys, verified.values, strict=True)) == case.changes
        assert copy.apply(verified) == copy.tip_root
        assert copy.tip_root == oracle.root_of(oracle.changed(case.old, case.changes), case.scheme)
        assert case.client_root in (None, copy.tip_root)
        copy.check()


@pytest.mark.parametrize("case", PROVEN_CHANGES, ids=lambda case: case.name)
def test_what_their_change_proof_leaves_out_brought_forward_by_ours_gives_the_end_root(
    case: ChangeCase,
) -> None:
    scheme = scheme_of(case.scheme)
    with new_database(case.old, scheme) as source, new_database(case.old, scheme) as copy:
        for changes in case.commits:
            source.commit(changes)
        theirs = copy.verify_changes(their_change_proof(case), case.root, case.start, case.end)
        copy.apply(theirs)
        if theirs.end is not None:
            start = theirs.end + b"\x00"
            proof = source.prove_changes(case.old_root, case.root, start, None)
            copy.apply(copy.verify_changes(proof, case.root, start, None))
        if case.start:
            proof = source.prove_changes(case.old_root, case.root, None, case.start)
            copy.apply(copy.verify_changes(proof, case.root, None, case.start))
        assert copy.root == copy.tip_root == case.root
        assert dict(copy.items()) == case.new
        copy.check()


@pytest.mark.parametrize("case", [case for case in CHANGES if case.refusal], ids=lambda case: case.name)
def test_where_they_refuse_to_prove_that_everything_was_deleted_we_prove_it(case: ChangeCase) -> None:
    proof = our_change_proof(case)
    assert proof == ChangeProof(tuple(sorted(case.old)), (None,) * len(case.old), None, ())
    with new_database(case.old, scheme_of(case.scheme)) as copy:
        assert copy.apply(copy.verify_changes(proof, case.root)) == case.root == merkledb.EMPTY_ROOT
        assert copy.root == case.root
