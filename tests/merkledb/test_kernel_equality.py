"""Both kernels say the same, of every stream and of every proof, however hostile."""

import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledb import (
    Branch,
    InvalidProof,
    KernelMissing,
    RangeProof,
    Reason,
    Scheme,
    VerifiedRange,
    root_of,
    verify_range,
)
from merkledb.formats.branch_record import (
    HEAVY,
    MAX_WEIGHT,
    InvalidRecord,
    encode_record,
    parse_record,
    split_records,
)
from merkledb.kernel import choice
from merkledb.kernel.compiled import CompiledKernel
from merkledb.kernel.interface import AnyWalk, Kernel
from merkledb.kernel.pure_fold import DELETED, Items
from merkledb.proofs import range_verifier
from merkledb.trie.node import Node
from tests.support import oracle
from tests.support.merkledb_strategies import contents, near_keys, ranges, schemes, short_keys
from tests.support.proof_verdicts import proof_of
from tests.support.range_proof_tamperings import SCHEME, TABLE, honest
from tests.support.thoroughness import amount

merklekernel = pytest.importorskip("merklekernel", reason="the compiled kernel is not installed")

PURE, COMPILED = Kernel(), CompiledKernel(merklekernel)

WRONG: Any = Branch
NO_BRANCHES = [
    WRONG(b"", None, ((True, bytes(32)),)),
    WRONG(b"", None, ((1.0, bytes(32)),)),
    WRONG(b"", None, ((1, bytes(32), 1),)),
    WRONG(b"", None, [(1, bytes(32))]),
    WRONG("", None, ()),
    WRONG(b"", 1, ()),
    WRONG(b"", None, ((1 << 70, bytes(32)),)),
]
IDS = st.binary(min_size=32, max_size=32)
DIGESTS = st.binary(max_size=32)
WEIGHTS = st.integers(1, MAX_WEIGHT) | st.just(HEAVY)


@st.composite
def records(draw: st.DrawFn, branch_factor: int) -> bytes:
    tokens = draw(
        st.lists(st.integers(0, branch_factor - 1), unique=True, min_size=1, max_size=branch_factor)
    )
    children = b"".join(bytes([token]) + draw(IDS) for token in sorted(tokens))
    digest = draw(st.none() | DIGESTS)
    count = len(tokens) + (digest is not None)
    return encode_record(children, digest, bytes(draw(st.lists(WEIGHTS, min_size=count, max_size=count))))


@st.composite
def streams(draw: st.DrawFn, branch_factor: int) -> Items:
    """Draw any items in order: also such as no commit and no proof leads to."""
    tokens = st.integers(0, branch_factor - 1) | st.sampled_from([0, branch_factor - 1])
    paths = sorted(draw(st.sets(st.lists(tokens, max_size=6).map(bytes), max_size=30)))
    weights = draw(st.lists(WEIGHTS, min_size=len(paths), max_size=len(paths)))
    items = Items(paths, [], [], bytearray(weights), {})
    for path in paths:
        kind = draw(st.sampled_from(["leaf", "leaf", "stub", "deletion", "record"]))
        item_id = DELETED if kind == "deletion" else draw(IDS)
        items.ids.append(None if kind == "record" else item_id)
        with_digest = kind == "leaf" or (kind == "record" and draw(st.booleans()))
        items.digests.append(draw(DIGESTS) if with_digest else None)
        if kind == "record":
            items.records[path] = draw(records(branch_factor))
    return items


@given(data=st.data(), scheme=schemes())
@settings(max_examples=amount(130, soak=8_000))
def test_folds_close_the_same_branches(data: st.DataObject, scheme: Scheme) -> None:
    items = data.draw(streams(scheme.branch_factor))
    pure, compiled = PURE.fold(scheme), COMPILED.fold(scheme)
    at = 0
    while at < len(items.paths):
        end = data.draw(st.integers(at + 1, len(items.paths)))
        columns = items.paths[at:end], items.ids[at:end], items.digests[at:end], items.weights[at:end]
        stretch = Items(*columns, items.records)
        assert compiled.feed(stretch) == pure.feed(stretch)
        at = end
    assert compiled.finish() == pure.finish()


@pytest.mark.parametrize("paths", [[b"\1", b"\0"], [b"\1", b"\1"], [b"\1\2", b"\1"]])
def test_what_is_out_of_order_is_refused(paths: list[bytes]) -> None:
    for fold in (PURE.fold(SCHEME), COMPILED.fold(SCHEME)):
        with pytest.raises(ValueError, match="ascending order"):
            fold.feed(Items(paths, [bytes(32)] * 2, [None] * 2, bytearray(2), {}))


@pytest.mark.parametrize(
    "items",
    [
        Items([b"\1"], [bytes(31)], [None], bytearray(1), {}),
        Items([b"\1"], [bytes(32)], [bytes(33)], bytearray(1), {}),
        Items([b"\1"], [bytes(32)], [], bytearray(1), {}),
        Items([b"\1"], [], [None], bytearray(1), {}),
        Items([b"\1"], [bytes(32)], [None], bytearray(), {}),
    ],
    ids=["short id", "long digest", "no digest", "no id", "no weight"],
)
def test_columns_that_are_none_are_refused(items: Items) -> None:
    with pytest.raises(ValueError, match=r"32 bytes|differ in length"):
        COMPILED.fold(SCHEME).feed(items)


@given(data=st.data(), branch_factor=st.sampled_from([2, 16, 256]))
@settings(max_examples=amount(100, soak=6_000))
def test_rows_of_history_are_the_same(data: st.DataObject, branch_factor: int) -> None:
    paths = data.draw(st.lists(st.binary(max_size=3), max_size=5))
    old = [data.draw(records(branch_factor)) for _ in paths]
    new = [data.draw(st.none() | altered(record, branch_factor)) for record in old]
    tokens = st.integers(0, branch_factor - 1)
    slots = dict.fromkeys(path + bytes([data.draw(tokens)]) for path in paths)
    children = [
        path + bytes([token])
        for path, (tokens, *_) in zip(paths, split_records(old), strict=True)
        for token in tokens
    ]
    keys = st.binary(min_size=8, max_size=12)
    found = st.lists(st.tuples(keys, st.binary(max_size=2)), min_size=1, max_size=3) | st.just(
        Node(b"\1\2", None)
    )
    visited = data.draw(st.dictionaries(st.sampled_from(children), found)) if children else {}
    bits = branch_factor.bit_length() - 1
    expected = PURE.delta_rows(paths, old, new, slots, visited, bits)
    assert COMPILED.delta_rows(paths, old, new, slots, visited, bits) == expected


@given(data=st.data(), scheme=schemes(), pairs=contents())
@settings(max_examples=amount(100, soak=6_000))
def test_items_and_pairs_fold_to_the_same_root(
    data: st.DataObject, scheme: Scheme, pairs: dict[bytes, bytes]
) -> None:
    items = data.draw(streams(scheme.branch_factor))
    keys = data.draw(st.permutations(sorted(pairs)))
    keys = [key for key in keys if scheme.codec.path(key) not in items.paths]
    values = [pairs[key] for key in keys]
    assert COMPILED.fold_all(scheme, items, keys, values) == PURE.fold_all(scheme, items, keys, values)
    if keys:
        twice = keys + keys[:1], values + values[:1]
        with pytest.raises(ValueError, match="ascending order"):
            COMPILED.fold_all(scheme, items, *twice)


@given(changes=st.dictionaries(short_keys(), st.none() | st.binary(max_size=3)))
def test_changes_are_sorted_the_same_way(changes: dict[bytes, bytes | None]) -> None:
    assert COMPILED.sort_changes(changes) == PURE.sort_changes(changes)


@pytest.mark.parametrize("change", [{"key": b""}, {b"key": 1}, {b"key": bytearray()}, {None: b""}], ids=repr)
def test_changes_of_other_types_are_refused(change: Any) -> None:
    for sort in (PURE.sort_changes, COMPILED.sort_changes):
        with pytest.raises(TypeError, match="bytes to bytes"):
            sort(change)


@given(data=st.data(), items=streams(16))
def test_items_come_in_the_same_order(data: st.DataObject, items: Items) -> None:
    order = data.draw(st.permutations(range(len(items.paths))))
    paths = [items.paths[number] for number in order]
    ids, digests = [items.ids[number] for number in order], [items.digests[number] for number in order]
    weights = bytearray(items.weights[number] for number in order)
    shuffled = Items(paths, ids, digests, weights, items.records)
    assert PURE.in_order(shuffled) == COMPILED.in_order(shuffled) == items


@given(data=st.data(), branch_factor=st.sampled_from([2, 4, 16, 256]))
@settings(max_examples=amount(100, soak=6_000))
def test_walks_take_the_same_steps(data: st.DataObject, branch_factor: int) -> None:
    tokens = st.integers(0, branch_factor - 1) | st.sampled_from([0, branch_factor - 1])
    changed = sorted(data.draw(st.sets(short_keys(), max_size=30)))
    scheme = Scheme(branch_factor=branch_factor)
    codec = scheme.codec
    prefixes = [codec.path(key)[:length] for key in changed for length in range(len(codec.path(key)) + 1)]
    some_paths = st.lists(tokens, max_size=4).map(bytes) | st.sampled_from(prefixes or [b""])
    paths = data.draw(st.lists(some_paths, max_size=6))
    rows = [data.draw(st.none() | records(branch_factor)) for _ in paths]
    bounds = st.integers(0, len(changed))
    ranges_of_changes = [sorted([data.draw(bounds), data.draw(bounds)]) for _ in paths]
    lows, highs = [low for low, _ in ranges_of_changes], [high for _, high in ranges_of_changes]
    expected = PURE.walk(scheme, changed).step(paths, rows, lows, highs)
    assert COMPILED.walk(scheme, changed).step(paths, rows, lows, highs) == expected


@given(
    row=st.binary(max_size=80) | st.builds(bytes.__add__, records(16), st.binary(max_size=2)) | records(16)
)
@settings(max_examples=amount(130, soak=8_000))
def test_walks_call_the_same_rows_unreadable(row: bytes) -> None:
    def step(walk: AnyWalk) -> Any:
        try:
            return walk.step([b""], [row], [0], [1])
        except InvalidRecord as error:
            return error.number, str(error)

    assert step(COMPILED.walk(SCHEME, [b"\1"])) == step(PURE.walk(SCHEME, [b"\1"]))


@given(row=st.binary(max_size=80) | records(16), token=st.integers(0, 15))
@settings(max_examples=amount(130, soak=8_000))
def test_children_weigh_the_same(row: bytes, token: int) -> None:
    try:
        expected = PURE.child_weight(row, token)
    except ValueError:
        with pytest.raises(ValueError, match="no record"):
            COMPILED.child_weight(row, token)
    else:
        assert COMPILED.child_weight(row, token) == expected


@given(scheme=schemes(), pairs=contents(min_size=1, max_size=9))
@settings(max_examples=amount(100, soak=6_000))
def test_buckets_have_the_same_branches(scheme: Scheme, pairs: dict[bytes, bytes]) -> None:
    keys = sorted(pairs)
    values = [pairs[key] for key in keys]
    assert COMPILED.bucket_branches(scheme, keys, values) == PURE.bucket_branches(scheme, keys, values)


@given(data=st.data(), branch_factor=st.sampled_from([2, 16, 256]))
@settings(max_examples=amount(100, soak=6_000))
def test_boundaries_are_the_same(data: st.DataObject, branch_factor: int) -> None:
    tokens = st.lists(st.integers(0, branch_factor - 1), max_size=4).map(bytes)
    paths = data.draw(st.lists(tokens, max_size=5))
    rows = [data.draw(st.none() | records(branch_factor) | st.just(b"\x01")) for _ in paths]
    digests = [data.draw(st.none() | DIGESTS) if row is None else None for row in rows]
    near = st.none() | tokens | st.sampled_from([path + bytes([1]) for path in paths] or [b""])
    start, end = data.draw(near), data.draw(near)
    try:
        expected = PURE.trimmed(paths, rows, digests, start, end)
    except InvalidRecord:
        with pytest.raises(ValueError, match="no record"):
            merklekernel.trimmed(Branch, paths, rows, digests, start, end)
    else:
        found = merklekernel.trimmed(Branch, paths, rows, digests, start, end)
        assert found == expected
        assert {type(branch) for branch in found} <= {Branch}


def test_a_walk_refuses_columns_that_do_not_fit() -> None:
    walk = merklekernel.Walk(16, [b"\1"])
    for paths, rows, lows, highs in ([b""], [], [0], [1]), ([b""], [b"\0\0"], [0], [2]):
        with pytest.raises(ValueError, match=r"differ in length|no record"):
            walk.step(paths, rows, lows, highs)


@st.composite
def altered(draw: st.DrawFn, record: bytes, branch_factor: int) -> bytes:
    """Draw a record that has some of the children of another, some with other ids, and more."""
    kept = {token: node_id for token, node_id in parse_record(record).pairs() if draw(st.booleans())}
    more = dict(parse_record(draw(records(branch_factor))).pairs()) if draw(st.booleans()) else {}
    children = {**kept, **more}
    rows = b"".join(bytes([token]) + children[token] for token in sorted(children))
    digest = draw(st.none() | DIGESTS)
    return encode_record(rows, digest, bytes(len(children) + (digest is not None)))


def outcome(verify: Callable[[], VerifiedRange]) -> Any:
    """Return all that a verification says, be it good or bad."""
    try:
        verified = verify()
    except InvalidProof as error:
        return error.reason, error.detail
    except Exception as error:  # noqa: BLE001 - both have to fail alike.
        return type(error), str(error)
    return [getattr(verified, field.name) for field in fields(verified)]


def assert_alike(proof: Any, *request: Any) -> Any:
    """Fail unless both kernels say the same of a proof; return what they say."""
    pure = outcome(lambda: verified_by(PURE, proof, *request))
    assert outcome(lambda: verified_by(COMPILED, proof, *request)) == pure
    return pure


def verified_by(kernel: Kernel, proof: Any, *request: Any) -> VerifiedRange:
    """Verify a proof with one of the kernels."""
    root, start, end, scheme, max_keys, max_bytes = request
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_verifier, "kernel", lambda: kernel)
        return verify_range(proof, root, start, end, scheme=scheme, max_keys=max_keys, max_bytes=max_bytes)


@pytest.mark.parametrize("name", TABLE)
def test_each_tampering_has_the_same_reason(name: str) -> None:
    tamper, reason = TABLE[name]
    case = tamper(honest())
    said = assert_alike(case.proof, case.root, case.start, case.end, SCHEME, case.max_keys, case.max_bytes)
    assert said[0] is reason


@given(data=st.data(), scheme=schemes(), store=contents())
@settings(max_examples=amount(100, soak=6_000))
def test_honest_proofs_show_the_same(data: st.DataObject, scheme: Scheme, store: dict[bytes, bytes]) -> None:
    start, end = data.draw(ranges(sorted(store)))
    proof = proof_of(store, scheme, start, end)
    size = len(proof.encode())
    limit = data.draw(st.none() | st.integers(size - 2, size + 2))
    assert_alike(proof, root_of(store, scheme), start, end, scheme, None, limit)


@pytest.mark.slow
@given(data=st.data(), scheme=schemes(), store=contents(min_size=1))
@settings(max_examples=amount(160, soak=10_000))
def test_mutated_proofs_are_judged_the_same(
    data: st.DataObject, scheme: Scheme, store: dict[bytes, bytes]
) -> None:
    start, end = data.draw(ranges(sorted(store)))
    proof = proof_of(store, scheme, start, end)
    for _ in range(data.draw(st.integers(1, 3))):
        proof = data.draw(mutated(proof, scheme))
    asked = data.draw(st.sampled_from([(start, end), (start, None), (None, end)]))
    assert_alike(
        proof, oracle.root_of(store, scheme), *asked, scheme, data.draw(st.none() | st.just(3)), None
    )


@st.composite
def mutated(draw: st.DrawFn, proof: RangeProof, scheme: Scheme) -> RangeProof:
    """Draw a proof that differs in one place."""
    what = draw(st.sampled_from(["key", "value", "end", "branch", "digest", "children", "drop", "pair"]))
    index = draw(st.integers(0, 30))
    if what in ("key", "value", "pair") and proof.keys:
        at = index % len(proof.keys)
        keys, values = list(proof.keys), list(proof.values)
        if what == "key":
            keys[at] = draw(near_keys(proof.keys))
        elif what == "value":
            values[at] = draw(st.binary(max_size=40))
        else:
            del keys[at], values[at]
        return proof._replace(keys=tuple(keys), values=tuple(values))
    if what == "end":
        return proof._replace(end=draw(st.none() | near_keys(proof.keys or (b"\1",))))
    if not proof.boundary:
        return proof
    at = index % len(proof.boundary)
    branches = list(proof.boundary)
    path, digest, children = branches[at]
    tokens = st.integers(0, scheme.branch_factor) | st.integers(-1, 300)
    if what == "branch":
        path = draw(st.sampled_from([path[:-1], path + b"\0", path + b"\1", bytes(504), bytes(505)]))
    elif what == "digest":
        digest = draw(st.none() | st.binary(max_size=34))
    elif what == "children":
        child = draw(tokens), draw(st.binary(min_size=31, max_size=33) | IDS)
        children = tuple(sorted({*children, child}))[index % 3 :]
    else:
        return proof._replace(boundary=tuple(branches[:at] + branches[at + 1 :]))
    branches[at] = Branch(path, digest, children)
    return proof._replace(boundary=tuple(branches))


@pytest.mark.parametrize(
    "fields",
    [
        {"keys": [b"a"]},
        {"keys": (b"a",)},
        {"values": (b"a", None)},
        {"keys": (b"a",), "values": (bytearray(b"a"),)},
        {"end": 1},
        {"boundary": []},
        {"boundary": (Branch(b"", None, ()),) * 2000},
        {"boundary": ((b"", None, ()),)},
        *({"boundary": (branch,)} for branch in NO_BRANCHES),
    ],
)
def test_what_has_not_the_form_of_a_proof_is_refused_the_same(fields: dict[str, Any]) -> None:
    case = honest().with_proof(**fields)
    reason, _ = assert_alike(case.proof, case.root, case.start, case.end, SCHEME, None, None)
    assert reason in (Reason.MALFORMED, Reason.TOKEN_OUT_OF_RANGE)


@pytest.mark.parametrize("root", [b"", bytes(31), None, bytearray(32)])
def test_a_root_that_is_none_is_refused_the_same(root: Any) -> None:
    case = honest()
    assert_alike(case.proof, root, case.start, case.end, SCHEME, None, None)


@pytest.mark.parametrize("limits", [(0, None), (1 << 70, None), (None, 0), (None, 1 << 70), (0, 0)])
def test_limits_are_kept_the_same(limits: tuple[int | None, int | None]) -> None:
    case = honest()
    assert_alike(case.proof, case.root, case.start, case.end, SCHEME, *limits)


def test_the_compiled_kernel_leaves_nothing_to_the_pure_one() -> None:
    methods = {name for name in vars(Kernel) if not name.startswith("_")}
    assert methods <= vars(CompiledKernel).keys()


def test_the_environment_chooses() -> None:
    assert choice.load("pure").name == "pure"
    assert choice.load("compiled").name == choice.load("").name == "compiled"
    with pytest.raises(KernelMissing, match="set it to 'pure' or 'compiled'"):
        choice.load("fast")


def test_the_kernel_of_another_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merklekernel, "INTERFACE", 0)
    with pytest.raises(KernelMissing, match="interface 0, not"):
        choice.load("")


def test_without_the_compiled_kernel_the_pure_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "merklekernel", None)
    assert choice.load("").name == "pure"
    with pytest.raises(KernelMissing, match="cannot be loaded"):
        choice.load("compiled")


def test_a_function_that_is_renamed_raises_the_number_of_the_interface() -> None:
    """With an older kernel under the same number, using the new name would be an AttributeError."""
    names = {name for name in dir(merklekernel) if not name.startswith("_")} - {"merklekernel"}
    assert names == {
        "Fold",
        "INTERFACE",
        "Walk",
        "bucket_branches",
        "child_weight",
        "delta_rows",
        "fold_all",
        "hash_leaves",
        "in_order",
        "sort_changes",
        "trimmed",
        "verify_range",
    }
    assert merklekernel.INTERFACE == 3, "these are the names of interface 3"
