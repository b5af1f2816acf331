"""Places where a range proof could be unsound, each looked at on its own.
 The questions come from the shape of the trie: edges that skip tokens, branches with one child outside the
range, bounds that are keys, prefixes of keys or nothing, paths that end within a byte. The lies are built by
hand so that the root matches wherever it can be made to.
"""

from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import merkledb
from merkledb import EMPTY_ROOT, Branch, RangeProof, Reason, Scheme, VerifiedRange, verify_range
from tests.support import oracle
from tests.support.databases import new_database
from tests.support.merkledb_strategies import BRANCH_FACTORS, SCHEMES, contents, near_keys, schemes
from tests.support.oracle import Node
from tests.support.proof_verdicts import Bound, change_proof_of, proof_of, rejection
from tests.support.thoroughness import amount

NIBBLES = Scheme("sha256", 16)


def trie_of(store: dict[bytes, bytes], scheme: Scheme = NIBBLES) -> Node:
    root = oracle.build(store, scheme)
    assert root is not None
    return root


def honest(store: dict[bytes, bytes], start: Bound, end: Bound) -> RangeProof:
    return proof_of(store, NIBBLES, start, end)


# --------------------------------------------------------------------------- one node for a whole trie


@given(data=st.data(), scheme=schemes(), store=contents(min_size=1))
@settings(max_examples=amount(30, soak=2_000))
def test_the_whole_trie_as_one_stub_proves_nothing(
    data: st.DataObject, scheme: Scheme, store: dict[bytes, bytes]
) -> None:
    # A lone child takes its parent's place, so a lone stub is the root wherever it hangs.
    bound = data.draw(near_keys(sorted(store)).filter(bool))
    root = oracle.root_of(store, scheme)
    path = oracle.path_of(bound, scheme)
    at = data.draw(st.integers(0, len(path) - 1))
    lone = Branch(path[:at], None, ((path[at], root),))
    slot = path[: at + 1]
    for start, end in ((bound + b"\x00", None), (None, bound[:-1])):
        reason = rejection(RangeProof((), (), end, (lone,)), root, start, end, scheme)
        is_outside = oracle.Bounds.of_keys(start, end, scheme).excludes_slot(slot)
        assert reason is (Reason.STUB_NOT_DIRECT if is_outside else Reason.STUB_INSIDE_RANGE)


def test_the_empty_root_has_no_nodes() -> None:
    for boundary in (
        (Branch(b"", None, ((0, EMPTY_ROOT),)),),
        (Branch(b"\x00", None, ((0, EMPTY_ROOT),)),),
    ):
        proof = RangeProof((), (), None, boundary)
        assert rejection(proof, EMPTY_ROOT, b"\x10", None, NIBBLES) is Reason.STUB_NOT_DIRECT
    two = Branch(b"", None, ((0, EMPTY_ROOT), (1, EMPTY_ROOT)))
    assert (
        rejection(RangeProof((), (), None, (two,)), EMPTY_ROOT, b"\x20", None, NIBBLES) is Reason.WRONG_ROOT
    )
    leaf = Branch(b"\x00\x00", b"", ())
    assert (
        rejection(RangeProof((), (), None, (leaf,)), EMPTY_ROOT, b"\x20", None, NIBBLES) is Reason.WRONG_ROOT
    )


def test_a_branch_of_which_nothing_is_told_is_rejected() -> None:
    store = {b"\x11": b"a", b"\x12": b"b"}
    proof = honest(store, None, None)._replace(boundary=(Branch(b"\x01", None, ()),))
    assert rejection(proof, trie_of(store).id, None, None, NIBBLES) is Reason.EMPTY_BRANCH
    nothing = RangeProof((), (), None, (Branch(b"\x01", None, ()),))
    assert rejection(nothing, EMPTY_ROOT, None, None, NIBBLES) is Reason.EMPTY_BRANCH


# ---------------------------------------------------------------------------- stubs and skipped tokens


def test_a_stub_inside_a_compressed_edge_is_refused_although_the_root_matches() -> None:
    # The edge from the root to the branch at 1 2 3 4 5 skips tokens. A stub anywhere along it
    # ends up in slot 1.
    store = {b"\x12\x34\x50": b"a", b"\x12\x34\x51": b"b", b"\x20": b"c", b"\x30": b"d"}
    root = trie_of(store)
    below = root.children[1]
    for depth in range(1, 5):
        path = below.path[:depth]
        stub = Branch(path, None, ((below.path[depth], below.id),))
        top = Branch(b"", None, ((2, root.children[2].id), (3, root.children[3].id)))
        proof = RangeProof((), (), b"\x10", (top, stub))
        assert rejection(proof, root.id, None, b"\x10", NIBBLES) is Reason.STUB_NOT_DIRECT


def test_a_stub_deeper_than_its_slot_hides_keys_on_either_side_of_the_range() -> None:
    store = {b"\x12\x10": b"a", b"\x12\x20": b"b", b"\x12\x30": b"c", b"\x40": b"d"}
    root = trie_of(store)
    hidden = root.children[1]
    top = Branch(b"", None, ((4, root.children[4].id),))
    before = (top, Branch(b"\x01\x02\x01", None, ((0, hidden.id),)))
    assert rejection(RangeProof((), (), b"\x12\x30", before), root.id, b"\x12\x20", b"\x12\x30", NIBBLES) is (
        Reason.STUB_NOT_DIRECT
    )
    behind = (top, Branch(b"\x01\x02\x0f", None, ((0, hidden.id),)))
    assert rejection(RangeProof((), (), b"\x12\x30", behind), root.id, b"\x12\x10", b"\x12\x30", NIBBLES) is (
        Reason.STUB_NOT_DIRECT
    )


def test_a_pair_that_is_told_does_not_lend_its_branch_to_a_stub_that_hides_others() -> None:
    # The pair and the stub together make a branch at 1 2, one that does not exist: the root shows it.
    store = {b"\x12\x10": b"a", b"\x12\x20": b"b", b"\x12\x30": b"c"}
    root = trie_of(store)
    proof = RangeProof((b"\x12\x10",), (b"a",), b"\x12\x2f", (Branch(b"\x01\x02", None, ((3, root.id),)),))
    assert rejection(proof, root.id, None, b"\x12\x2f", NIBBLES) is Reason.WRONG_ROOT


def test_an_invented_neighbour_makes_a_deeper_stub_direct_but_the_root_wrong() -> None:
    store = {b"\x12\x10": b"a", b"\x12\x20": b"b", b"\x40": b"c"}
    root = trie_of(store)
    hidden = root.children[1]
    top = Branch(b"", None, ((4, root.children[4].id),))
    for neighbours in (
        Branch(b"\x01\x02\x0f", None, ((0, hidden.id), (1, hidden.id))),
        Branch(b"\x01\x02\x0f\x00", b"digest", ((0, hidden.id),)),
    ):
        proof = RangeProof((), (), b"\x12\x20", (top, neighbours))
        assert rejection(proof, root.id, b"\x12", b"\x12\x20", NIBBLES) is Reason.WRONG_ROOT


def test_a_stub_may_hang_under_a_branch_that_has_nothing_else_outside_the_range() -> None:
    # The branch at 1 2 has a single child outside; the pairs inside the range make it a branch.
    store = {b"\x12\x10": b"a", b"\x12\x20": b"b", b"\x12\x30": b"c"}
    for start, end in ((b"\x12\x20", None), (None, b"\x12\x20"), (b"\x12\x20", b"\x12\x20")):
        proof = honest(store, start, end)
        assert rejection(proof, trie_of(store).id, start, end, NIBBLES) is None


def test_a_stub_may_hang_under_a_branch_that_only_a_value_makes_one() -> None:
    store = {b"\x12": b"a", b"\x12\x20": b"b", b"\x12\x20\x33": b"c"}
    root = trie_of(store).id
    for start, end in ((b"\x12", b"\x12"), (b"\x13", None), (None, b""), (b"\x12\x20", b"\x12\x20")):
        assert rejection(honest(store, start, end), root, start, end, NIBBLES) is None


def test_the_node_at_the_end_of_an_edge_may_not_stay_closed_when_the_bound_lies_on_the_edge() -> None:
    # Everything below slot 1 lies before the start, but the slot itself does not: its range of
    # keys holds the start.
    store = {b"\x10\x55": b"a", b"\x10\x57": b"b", b"\x30": b"c"}
    root = trie_of(store)
    closed = (Branch(b"", None, ((1, root.children[1].id),)),)
    proof = RangeProof((b"\x30",), (b"c",), None, closed)
    assert rejection(proof, root.id, b"\x10\x60", None, NIBBLES) is Reason.STUB_INSIDE_RANGE
    assert rejection(honest(store, b"\x10\x60", None), root.id, b"\x10\x60", None, NIBBLES) is None


# ---------------------------------------------------------------------------------- bounds and the end


def test_a_bound_is_part_of_its_range() -> None:
    store = {b"\x10": b"a", b"\x20": b"b", b"\x30": b"c"}
    root = trie_of(store)
    for key, told, start, end in (
        (b"\x10", {b"\x20": b"b"}, b"\x10", b"\x20"),
        (b"\x20", {b"\x10": b"a"}, b"\x10", b"\x20"),
        (b"\x20", {}, b"\x20", b"\x20"),
    ):
        path = oracle.path_of(key, NIBBLES)
        rest = [
            (t, c.id) for t, c in root.children.items() if bytes([t]) != path[:1] and c.path[:1] > b"\x02"
        ]
        boundary = (Branch(b"", None, tuple(rest)), Branch(path, store[key], ()))
        proof = RangeProof(tuple(told), tuple(told.values()), end, boundary)
        assert rejection(proof, root.id, start, end, NIBBLES) is Reason.DIGEST_INSIDE_RANGE
        slots = tuple(sorted([*rest, (path[0], root.children[path[0]].id)]))
        proof = proof._replace(boundary=(Branch(b"", None, slots),))
        assert rejection(proof, root.id, start, end, NIBBLES) is Reason.STUB_INSIDE_RANGE


def test_what_extends_the_end_lies_outside_and_what_the_end_extends_inside() -> None:
    store = {b"\x10": b"a", b"\x10\x00": b"b", b"\x10\x00\x00": b"c"}
    root = trie_of(store).id
    proof = honest(store, None, b"\x10\x00")
    assert proof.keys == (b"\x10", b"\x10\x00")
    assert rejection(proof, root, None, b"\x10\x00", NIBBLES) is None
    assert rejection(proof._replace(end=b"\x10"), root, None, b"\x10", NIBBLES) is Reason.KEY_OUTSIDE_RANGE
    longer = RangeProof((*proof.keys, b"\x10\x00\x00"), (*proof.values, b"c"), b"\x10\x00", ())
    assert rejection(longer, root, None, b"\x10\x00", NIBBLES) is Reason.KEY_OUTSIDE_RANGE


def test_an_unbounded_end_leaves_nothing_behind_it() -> None:
    store = {b"\x10": b"a", b"\xff": b"b", b"\xff" * 200: b"c"}
    root = trie_of(store)
    assert rejection(honest(store, b"\x11", None), root.id, b"\x11", None, NIBBLES) is None
    last = Branch(b"\x0f\x0f", None, ((15, trie_of(store).children[15].children[15].id),))
    proof = RangeProof((b"\xff",), (b"b",), None, (*honest(store, b"\x11", None).boundary, last))
    assert rejection(proof, root.id, b"\x11", None, NIBBLES) is Reason.STUB_INSIDE_RANGE
    digest = Branch(b"\x0f" * 400, NIBBLES.digest(b"c"), ())
    proof = proof._replace(boundary=(*honest(store, b"\x11", None).boundary, digest))
    assert rejection(proof, root.id, b"\x11", None, NIBBLES) is Reason.DIGEST_INSIDE_RANGE


def test_an_unbounded_start_leaves_nothing_before_it() -> None:
    store = {b"": b"a", b"\x10": b"b", b"\x20": b"c"}
    root = trie_of(store)
    top = honest(store, None, b"\x10").boundary[0]
    without_empty_key = RangeProof((b"\x10",), (b"b",), b"\x10", (top._replace(digest=b"a"),))
    assert rejection(without_empty_key, root.id, None, b"\x10", NIBBLES) is Reason.DIGEST_INSIDE_RANGE
    assert rejection(without_empty_key, root.id, b"\x10", b"\x10", NIBBLES) is None


def test_the_empty_key_as_both_bounds_is_a_range_of_one_key() -> None:
    for store in ({b"": b"a", b"\x10": b"b"}, {b"\x10": b"b", b"\x20": b"c"}, {b"": b"a"}, {b"\x10": b"b"}):
        proof = honest(store, b"", b"")
        assert rejection(proof, trie_of(store).id, b"", b"", NIBBLES) is None
        assert dict(zip(proof.keys, proof.values, strict=True)) == oracle.pairs_in(store, b"", b"")
        lie = (
            RangeProof((), (), b"", proof.boundary)
            if b"" in store
            else RangeProof((b"",), (b"",), b"", proof.boundary)
        )
        assert rejection(lie, trie_of(store).id, b"", b"", NIBBLES) in (
            Reason.WRONG_ROOT,
            Reason.STUB_NOT_DIRECT,
        )


def test_a_cut_off_proof_of_the_empty_key_alone_makes_progress() -> None:
    store = {b"": b"a", b"\x00": b"b"}
    proof = honest(store, None, b"")
    verified = verify_range(proof, trie_of(store).id, None, b"\xff", scheme=NIBBLES)
    assert (verified.end, verified.complete, verified.next_keys) == (b"", False, (b"\x00",))


def test_a_leaf_opened_without_need_behind_the_end_is_a_next_key_too() -> None:
    # No honest prover opens it, but a verifier has no reason to reject the proof, nor to forget the key.
    store = {b"\x10": b"a", b"\x20": b"b", b"\x20\x01": b"c", b"\x30": b"d"}
    proof = honest(store, None, b"\x10")
    top = proof.boundary[0]
    child = trie_of(store).children[2].opened()
    assert child.path == b"\x02\x00"
    boundary = (top._replace(children=top.children[1:]), Branch(*child))
    verified = verify_range(
        proof._replace(boundary=boundary), trie_of(store).id, None, b"\xff", scheme=NIBBLES
    )
    assert verified.next_keys == (b"\x20", b"\x20\x00", b"\x30")


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_bounds_longer_than_any_key_are_bounds_like_others(scheme: Scheme) -> None:
    longest = b"\x55" * scheme.max_key_bytes
    store = {longest: b"a", b"\x55": b"b", longest[:-1] + b"\x56": b"c"}
    root = oracle.root_of(store, scheme)
    behind = longest + b"\x00"
    for start, end in ((behind, None), (None, behind), (behind, behind + b"\x00" * 500), (b"", behind)):
        proof = proof_of(store, scheme, start, end)
        verified = verify_range(proof, root, start, end, scheme=scheme)
        assert dict(zip(verified.keys, verified.values, strict=True)) == oracle.pairs_in(store, start, end)


# ------------------------------------------------------------------------------ digests, tokens, paths


@pytest.mark.parametrize("branch_factor", [2, 4, 16])
def test_a_digest_stands_only_where_a_key_can_end(branch_factor: int) -> None:
    scheme = Scheme("sha256", branch_factor)
    tokens_per_byte = len(oracle.path_of(b"\x00", scheme))
    for length in range(2 * tokens_per_byte):
        path = bytes(length)
        branch = oracle.PlainBranch(path, b"digest", ())
        proof = RangeProof((), (), None, (Branch(*branch),))
        expected = None if length % tokens_per_byte == 0 else Reason.BAD_DIGEST
        assert rejection(proof, oracle.id_of(branch, scheme), b"\xff", None, scheme) is expected


def test_a_digest_of_32_bytes_is_a_hash_and_never_a_value() -> None:
    value = b"v" * 40
    store = {b"\x10": value, b"\x20": b"b"}
    digest = NIBBLES.digest(value)
    proof = honest(store, None, None)._replace(values=(digest, b"b"))
    assert rejection(proof, trie_of(store).id, None, None, NIBBLES) is Reason.WRONG_ROOT
    # A value that is the hash of another is hashed again, so two stores with these values differ.
    assert oracle.root_of({b"\x10": digest, b"\x20": b"b"}, NIBBLES) != trie_of(store).id


def test_values_of_31_and_32_bytes_lie_on_either_side_of_hashing() -> None:
    for length, digest_bytes in ((31, 31), (32, 32), (33, 32)):
        store = {b"\x10": bytes(length), b"\x20": b"b"}
        (branch, *_) = [b for b in honest(store, b"\x10\x00", None).boundary if b.digest is not None]
        assert branch.digest is not None
        assert len(branch.digest) == digest_bytes
        assert (
            rejection(honest(store, b"\x10\x00", None), trie_of(store).id, b"\x10\x00", None, NIBBLES) is None
        )


@pytest.mark.parametrize("branch_factor", BRANCH_FACTORS)
def test_the_same_proof_under_another_scheme_is_refused(branch_factor: int) -> None:
    store = {bytes([byte]): b"v" for byte in range(0, 256, 5)}
    own = Scheme("sha256", branch_factor)
    proof, root = proof_of(store, own, b"\x20", b"\x90"), oracle.root_of(store, own)
    assert rejection(proof, root, b"\x20", b"\x90", own) is None
    for other in SCHEMES:
        if other != own:
            assert rejection(proof, root, b"\x20", b"\x90", other) is not None


def test_a_byte_of_branch_factor_256_is_one_token_even_from_128_on() -> None:
    scheme = Scheme("sha256", 256)
    store = {bytes([byte]): b"v" for byte in (0, 127, 128, 129, 255)}
    root = oracle.root_of(store, scheme)
    for key in store:
        proof = proof_of(store, scheme, key, key)
        assert rejection(proof, root, key, key, scheme) is None
        assert len(proof.boundary[0].children) == 4


# ---------------------------------------------------------------------------------- the verified range


def verified_example() -> VerifiedRange:
    store = {b"\x10": b"a", b"\x20": b"b", b"\x30": b"c"}
    return verify_range(honest(store, None, b"\x20"), trie_of(store).id, None, b"\x20", scheme=NIBBLES)


def test_nobody_but_the_verifier_makes_a_verified_range() -> None:
    with pytest.raises(TypeError):
        VerifiedRange()  # type: ignore[call-arg]  # that it takes nothing a caller could give is what is tested


@pytest.mark.parametrize(
    "attribute", ["keys", "values", "start", "end", "root", "complete", "branches", "top_nodes", "invented"]
)
def test_a_verified_range_cannot_be_changed(attribute: str) -> None:
    verified = verified_example()
    with pytest.raises(AttributeError):
        setattr(verified, attribute, ())


def test_the_columns_of_a_verified_range_cannot_be_changed_either() -> None:
    verified = verified_example()
    assert {type(column) for column in verified.top_nodes} == {tuple, bytes, MappingProxyType}
    assert {type(column) for column in (verified.keys, verified.values, verified.next_keys)} == {tuple}
    with pytest.raises(TypeError):
        verified.branches[b"\x01"] = b"a lie"  # type: ignore[index]  # that it cannot be done is tested


def test_the_columns_of_verified_changes_cannot_be_changed_either() -> None:
    old, new = {b"\x10": b"a", b"\x20": b"b"}, {b"\x10": b"c", b"\x21": b"d"}
    with new_database(old, NIBBLES) as database:
        proof = change_proof_of(old, new, NIBBLES)
        verified = database.verify_changes(proof, trie_of(new).id)
    mappings = [verified.changes.new, verified.branches, verified.history, verified.bucket_pairs]
    assert {type(mapping) for mapping in mappings} == {MappingProxyType}
    assert {type(column) for column in (*verified.changes[1:], verified.before, verified.gone)} == {tuple}
    assert {type(column) for column in verified.top_nodes} == {tuple, bytes, MappingProxyType}


def test_verification_keeps_nothing_that_the_caller_could_still_change() -> None:
    store = {b"\x10": b"a", b"\x20": b"b"}
    proof = honest(store, None, None)
    changeable = proof._replace(keys=list(proof.keys), values=list(proof.values))  # type: ignore[arg-type]  # not tuples
    assert rejection(changeable, trie_of(store).id, None, None, NIBBLES) is Reason.MALFORMED


def test_what_has_not_the_length_of_a_root_matches_nothing_and_blames_no_proof() -> None:
    proof = honest({b"\x10": b"a"}, None, None)
    assert rejection(proof, merkledb.EMPTY_ROOT, None, None, NIBBLES) is Reason.WRONG_ROOT
    for root in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match=f"a root has 32 bytes, not {len(root)}"):
            merkledb.verify_range(proof, root, scheme=NIBBLES)
