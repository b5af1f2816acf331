"""The oracle is right: it agrees with another project's implementation and with examples made by hand."""

import hashlib

import pytest

from tests.support import oracle
from tests.support.oracle import PlainBranch, PlainScheme
from tests.support.vector_cases import (
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

NIBBLES = PlainScheme("sha256", 16)
PROVEN = [case for case in range_cases() if case.refusal is None]
PROVEN_CHANGES = [case for case in change_cases() if case.refusal is None]
SMALLEST_BIG_CASE = min(big_cases(), key=lambda case: case.pairs)


@pytest.mark.parametrize("case", root_cases(), ids=lambda case: case.name)
def test_the_oracle_computes_the_root_of_every_vector(case: RootCase) -> None:
    assert oracle.root_of(case.contents, case.scheme) == case.root


def test_the_oracle_computes_the_roots_of_a_big_vector() -> None:
    case = SMALLEST_BIG_CASE
    contents, deleted, replaced = big_changes(case.pairs)
    assert oracle.root_of(contents, case.scheme) == case.root
    for key in deleted:
        del contents[key]
    assert oracle.root_of(contents, case.scheme) == case.root_after_deletes
    contents.update(replaced)
    assert oracle.root_of(contents, case.scheme) == case.root_after_replacements


@pytest.mark.parametrize("case", PROVEN, ids=lambda case: case.name)
def test_the_oracle_collects_the_nodes_of_every_range_proof(case: RangeCase) -> None:
    root = oracle.build(case.contents, case.scheme)
    bounds = [oracle.path_of(key, case.scheme) for key in (case.start, case.proven_end) if key is not None]
    nodes = {node.opened() for bound in bounds for node in oracle.nodes_towards(root, bound)}
    assert nodes == set(case.nodes)
    assert [oracle.id_of(node, case.scheme) for node in case.nodes][:1] == [case.root][: len(case.nodes)]


@pytest.mark.parametrize("case", PROVEN, ids=lambda case: case.name)
def test_the_oracle_proves_the_pairs_of_every_range_proof(case: RangeCase) -> None:
    proof = oracle.prove_range(case.contents, case.scheme, case.start, case.end, case.max_keys)
    assert dict(zip(proof.keys, proof.values, strict=True)) == case.pairs
    is_cut = len(oracle.pairs_in(case.contents, case.start, case.end)) > case.max_keys
    assert proof.end == (case.proven_end if is_cut else case.end)


@pytest.mark.parametrize("case", key_cases(), ids=lambda case: case.name)
def test_the_oracle_collects_the_nodes_of_every_proof_for_one_key(case: KeyCase) -> None:
    towards = oracle.nodes_towards(
        oracle.build(case.contents, case.scheme), oracle.path_of(case.key, case.scheme)
    )
    assert tuple(node.opened() for node in towards) == case.nodes
    assert case.contents.get(case.key) == case.value


@pytest.mark.parametrize("case", PROVEN_CHANGES, ids=lambda case: case.name)
def test_the_oracle_proves_the_changes_of_every_change_proof(case: ChangeCase) -> None:
    assert oracle.root_of(case.old, case.scheme) == case.old_root
    assert oracle.root_of(case.new, case.scheme) == case.root
    proof = oracle.prove_changes(case.old, case.new, case.scheme, case.start, case.end, case.max_keys)
    assert dict(zip(proof.keys, proof.values, strict=True)) == case.changes
    is_cut = len(oracle.changes_between(case.old, case.new, case.start, case.end)) > case.max_keys
    assert proof.end == (case.proven_end if is_cut else case.end)
    theirs = oracle.Bounds.of_keys(case.start, case.proven_end, case.scheme).clip_all(case.nodes)
    ours = oracle.prove_changes(case.old, case.new, case.scheme, case.start, case.proven_end)
    assert ours.boundary == theirs


@pytest.mark.parametrize("case", PROVEN_CHANGES, ids=lambda case: case.name)
def test_the_judge_finds_no_untruth_in_any_change_proof_and_one_in_each_lie(case: ChangeCase) -> None:
    place = case.old, case.new, case.scheme, case.start, case.end
    proof = oracle.prove_changes(*place, case.max_keys)
    assert oracle.untruth_of(proof, *place) is None
    if proof.keys and proof.keys[0] != proof.end:
        missed = proof._replace(keys=proof.keys[1:], values=proof.values[1:])
        assert oracle.untruth_of(missed, *place) == "its changes do not lead to the new content"
    if proof.end != case.end:
        # A proof may end anywhere, but not after changes that it does not hold.
        assert oracle.untruth_of(proof._replace(end=case.end), *place)
    elif proof.end is not None:
        beyond = proof._replace(end=proof.end + b"\x00")
        assert oracle.untruth_of(beyond, *place) == "it ends where it may not"
    for at, branch in enumerate(proof.boundary):
        altered = branch._replace(
            digest=None if branch.digest is None else branch.digest + b"\x00",
            children=tuple((token, bytes(31) + b"\x01") for token, _ in branch.children),
        )
        boundary = (*proof.boundary[:at], altered, *proof.boundary[at + 1 :])
        assert oracle.untruth_of(proof._replace(boundary=boundary), *place)


def test_a_leaf_is_hashed_byte_by_byte_as_the_design_says() -> None:
    # no children | a value follows | its length | the value | path length in bits | path
    preimage = bytes.fromhex("00 01 05 76616c7565 18 6b6579")
    assert oracle.root_of({b"key": b"value"}, NIBBLES) == hashlib.sha256(preimage).digest()


def test_an_odd_path_is_padded_with_zero_bits() -> None:
    low, high = (hashlib.sha256(b"\x00\x01\x00\x08" + key).digest() for key in (b"\x61", b"\x62"))
    # two children, each with its token | no value | 4 bits | the path's one token and four zero bits
    preimage = b"\x02\x01" + low + b"\x02" + high + b"\x00\x04\x60"
    assert oracle.root_of({b"\x61": b"", b"\x62": b""}, NIBBLES) == hashlib.sha256(preimage).digest()


def test_a_token_above_127_takes_two_bytes() -> None:
    scheme = PlainScheme("sha256", 256)
    leaf = hashlib.sha256(b"\x00\x01\x00\x08\x80").digest()
    preimage = b"\x01\x80\x01" + leaf + b"\x01\x00\x00"
    assert oracle.root_of({b"": b"", b"\x80": b""}, scheme) == hashlib.sha256(preimage).digest()


def test_the_boundary_keeps_only_what_lies_strictly_outside() -> None:
    contents = {b"\x10": b"a", b"\x11": b"b", b"\x11\x22": b"c", b"\x30": b"d"}
    root = oracle.build(contents, NIBBLES)
    assert root is not None
    at_1 = root.children[1]
    boundary = oracle.boundary_of(root, b"\x11", b"\x11", NIBBLES)
    assert boundary == (
        PlainBranch(b"", None, ((3, root.children[3].id),)),
        PlainBranch(b"\x01", None, ((0, at_1.children[0].id),)),
        PlainBranch(b"\x01\x01", None, ((2, at_1.children[1].children[2].id),)),
    )


def test_the_node_where_a_path_leaves_the_trie_inside_an_edge_is_part_of_the_boundary() -> None:
    contents = {b"\x10\x55": b"a", b"\x10\x57": b"b", b"\x30": b"c"}
    root = oracle.build(contents, NIBBLES)
    assert root is not None
    below = root.children[1]
    assert oracle.boundary_of(root, b"\x10\x60", None, NIBBLES) == (
        PlainBranch(b"\x01\x00\x05", None, ((5, below.children[5].id), (7, below.children[7].id))),
    )


def test_the_brute_force_verifier_knows_the_truth_of_every_claim_in_a_small_world() -> None:
    worlds = list(oracle.worlds_over([b"", b"\x01"], [b"x", b"y"]))
    verifier = oracle.BruteForceVerifier(worlds, NIBBLES)
    assert len(verifier.worlds) == len(worlds) == 9
    root = oracle.root_of({b"": b"x", b"\x01": b"y"}, NIBBLES)
    assert verifier.is_true({b"\x01": b"y"}, root, b"\x00", None)
    assert not verifier.is_true({}, root, b"\x00", None)
    assert not verifier.is_true({b"": b"x", b"\x01": b"x"}, root, None, None)
