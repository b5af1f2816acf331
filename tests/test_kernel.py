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
    kernel,
    root_of,
)
from merkledb.fold import DELETED, Fold, Items
from merkledb.kernel import CompiledFold
from merkledb.past_branch import pure_past_rows
from merkledb.record import encode_record, parse_record
from merkledb.verifier import verify_compiled, verify_pure
from tests import oracle
from tests.judging import proof_of
from tests.strategies import contents, near_keys, ranges, schemes
from tests.tamperings import SCHEME, TABLE, honest

merklekernel = pytest.importorskip("merklekernel", reason="the compiled kernel is not installed")

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


@st.composite
def records(draw: st.DrawFn, branch_factor: int) -> bytes:
    tokens = draw(
        st.lists(st.integers(0, branch_factor - 1), unique=True, min_size=1, max_size=branch_factor)
    )
    children = b"".join(bytes([token]) + draw(IDS) for token in sorted(tokens))
    return encode_record(children, draw(st.none() | DIGESTS))


@st.composite
def streams(draw: st.DrawFn, branch_factor: int) -> Items:
    """Draw any items in order: also such as no commit and no proof leads to."""
    tokens = st.integers(0, branch_factor - 1) | st.sampled_from([0, branch_factor - 1])
    paths = sorted(draw(st.sets(st.lists(tokens, max_size=6).map(bytes), max_size=30)))
    items = Items(paths, [], [], {})
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
@settings(max_examples=400)
def test_folds_close_the_same_branches(data: st.DataObject, scheme: Scheme) -> None:
    items = data.draw(streams(scheme.branch_factor))
    pure, compiled = Fold(scheme), CompiledFold(merklekernel, scheme)
    at = 0
    while at < len(items.paths):
        end = data.draw(st.integers(at + 1, len(items.paths)))
        stretch = Items(items.paths[at:end], items.ids[at:end], items.digests[at:end], items.records)
        assert compiled.feed(stretch) == pure.feed(stretch)
        at = end
    assert compiled.finish() == pure.finish()


@pytest.mark.parametrize("paths", [[b"\1", b"\0"], [b"\1", b"\1"], [b"\1\2", b"\1"]])
def test_what_is_out_of_order_is_refused(paths: list[bytes]) -> None:
    for fold in (Fold(SCHEME), CompiledFold(merklekernel, SCHEME)):
        with pytest.raises(ValueError, match="ascending order"):
            fold.feed(Items(paths, [bytes(32)] * 2, [None] * 2, {}))


@pytest.mark.parametrize(
    "items",
    [
        Items([b"\1"], [bytes(31)], [None], {}),
        Items([b"\1"], [bytes(32)], [bytes(33)], {}),
        Items([b"\1"], [bytes(32)], [], {}),
        Items([b"\1"], [], [None], {}),
    ],
    ids=["short id", "long digest", "no digest", "no id"],
)
def test_columns_that_are_none_are_refused(items: Items) -> None:
    with pytest.raises(ValueError, match=r"32 bytes|differ in length"):
        CompiledFold(merklekernel, SCHEME).feed(items)


@given(data=st.data(), branch_factor=st.sampled_from([2, 16, 256]))
@settings(max_examples=300)
def test_rows_of_history_are_the_same(data: st.DataObject, branch_factor: int) -> None:
    paths = data.draw(st.lists(st.binary(max_size=3), max_size=5))
    old = [data.draw(records(branch_factor)) for _ in paths]
    new = [data.draw(st.none() | altered(record, branch_factor)) for record in old]
    slots = [path + bytes([data.draw(st.integers(0, branch_factor - 1))]) for path in paths]
    assert merklekernel.past_rows(paths, old, new, slots) == pure_past_rows(paths, old, new, slots)


@st.composite
def altered(draw: st.DrawFn, record: bytes, branch_factor: int) -> bytes:
    """Draw a record that has some of the children of another, some with other ids, and more."""
    kept = {token: node_id for token, node_id in parse_record(record).pairs() if draw(st.booleans())}
    more = dict(parse_record(draw(records(branch_factor))).pairs()) if draw(st.booleans()) else {}
    children = {**kept, **more}
    rows = b"".join(bytes([token]) + children[token] for token in sorted(children))
    return encode_record(rows, draw(st.none() | DIGESTS))


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
    pure = outcome(lambda: verify_pure(proof, *request))
    assert outcome(lambda: verify_compiled(merklekernel, proof, *request)) == pure
    return pure


@pytest.mark.parametrize("name", TABLE)
def test_each_tampering_has_the_same_reason(name: str) -> None:
    tamper, reason = TABLE[name]
    case = tamper(honest())
    said = assert_alike(case.proof, case.root, case.start, case.end, SCHEME, case.max_keys, case.max_bytes)
    assert said[0] is reason


@given(data=st.data(), scheme=schemes(), store=contents())
@settings(max_examples=300)
def test_honest_proofs_show_the_same(data: st.DataObject, scheme: Scheme, store: dict[bytes, bytes]) -> None:
    start, end = data.draw(ranges(sorted(store)))
    proof = proof_of(store, scheme, start, end)
    size = len(proof.encode())
    limit = data.draw(st.none() | st.integers(size - 2, size + 2))
    assert_alike(proof, root_of(store, scheme), start, end, scheme, None, limit)


@given(data=st.data(), scheme=schemes(), store=contents(min_size=1))
@settings(max_examples=500)
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


@pytest.mark.parametrize("limits", [(-1, None), (1 << 70, None), (None, -1), (0, 0)])
def test_limits_are_kept_the_same(limits: tuple[int | None, int | None]) -> None:
    case = honest()
    assert_alike(case.proof, case.root, case.start, case.end, SCHEME, *limits)


def test_the_environment_chooses() -> None:
    assert kernel.load("pure") is None
    assert kernel.load("compiled") is merklekernel
    assert kernel.load("") is merklekernel
    with pytest.raises(KernelMissing, match="set it to 'pure' or 'compiled'"):
        kernel.load("fast")


def test_the_kernel_of_another_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merklekernel, "INTERFACE", 0)
    with pytest.raises(KernelMissing, match="interface 0, not"):
        kernel.load("")


def test_without_the_compiled_kernel_the_pure_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "merklekernel", None)
    assert kernel.load("") is None
    with pytest.raises(KernelMissing, match="cannot be loaded"):
        kernel.load("compiled")
