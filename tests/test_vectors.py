"""merkledb agrees with what avalanchego's own implementation produced (`tests/vectors/README.md`)."""

from collections.abc import Mapping

import pytest

import merkledb
from merkledb import Branch, RangeProof, Scheme
from tests.oracle import Bounds, PlainBranch, PlainScheme
from tests.stores import new_database
from tests.vector_cases import (
    BigCase,
    KeyCase,
    RangeCase,
    RootCase,
    big_cases,
    big_changes,
    key_cases,
    range_cases,
    root_cases,
)

PROVEN = [case for case in range_cases() if case.refusal is None]
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
