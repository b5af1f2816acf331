"""A view reads and proves what its commit would give, and a commit that came first makes it stale."""

import contextlib
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import merkledb
from merkledb import EMPTY_ROOT, Scheme, View
from tests.support import oracle
from tests.support.databases import new_database
from tests.support.merkledb_strategies import (
    changes,
    commit_sequences,
    contents,
    limits,
    near_keys,
    ranges,
    schemes,
)
from tests.support.state_assertions import (
    Request,
    assert_proves_as,
    assert_reads_as,
    assert_reads_range_as,
    small_windows,
)
from tests.support.thoroughness import amount

Change = dict[bytes, bytes | None]


@st.composite
def proposals(draw: st.DrawFn, store: dict[bytes, bytes]) -> list[Change]:
    """Changes to propose one on top of the other, of which some delete much, or undo, or change nothing."""
    proposed: list[Change] = []
    model = store
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 7))
        change: Change
        if kind == 0:
            change = dict.fromkeys(model)
        elif kind == 1:
            change = dict.fromkeys(draw(st.lists(near_keys(sorted(model)), max_size=6)))
        elif kind == 2:
            change = dict(model)
        elif kind == 3:
            change = oracle.changes_between(model, store)
        else:
            change = draw(changes(sorted({**store, **model})))
        proposed.append(change)
        model = oracle.changed(model, change)
    return proposed


def is_absent(model: dict[bytes, bytes], key: bytes) -> bool:
    return key not in model


@pytest.mark.slow
@given(data=st.data(), scheme=schemes(), store=contents())
@settings(max_examples=amount(100, soak=6_000))
def test_views_on_views_read_and_prove_what_their_commits_give(
    data: st.DataObject, scheme: Scheme, store: dict[bytes, bytes]
) -> None:
    proposed = data.draw(proposals(store))
    models = list(itertools.accumulate(proposed, oracle.changed, initial=store))
    pool = sorted({key for model in models for key in model})
    start, end = data.draw(ranges(pool))
    request = Request(*data.draw(ranges(pool)), *data.draw(limits()))
    with new_database(store, scheme) as database, database.view(proposed[0]) as lowest:
        views = [lowest]
        for change in proposed[1:]:
            views.append(views[-1].view(change))
        answers = []
        for view, model in zip(views, models[1:], strict=True):
            assert_reads_as(view, model, scheme)
            assert_reads_range_as(view, model, start, end)
            assert_proves_as(view, model, scheme, start, end)
            answers.append(request.answer(view))
            absent = data.draw(near_keys(pool).filter(functools.partial(is_absent, model)))
            assert (view.get(absent), absent in view, view.get(bytes(600))) == (None, False, None)
            assert view.get(absent, "default") == "default"
        assert_reads_as(database, store, scheme)
        for view, model, answer in zip(views, models[1:], answers, strict=True):
            assert view.commit() == view.root == database.root
            assert_reads_as(database, model, scheme)
            assert request.answer(database) == answer
            database.check()
        # A view is read on after its commit, whatever came afterwards.
        for view, model in zip(views, models[1:], strict=True):
            assert_reads_as(view, model, scheme)
            assert_proves_as(view, model, scheme, start, end)


@pytest.mark.slow
@given(data=st.data(), scheme=schemes(), first=contents(), commits=commit_sequences())
@settings(max_examples=amount(30, soak=2_000))
def test_a_view_keeps_to_its_state_while_others_commit(
    data: st.DataObject, scheme: Scheme, first: dict[bytes, bytes], commits: list[Change]
) -> None:
    change = data.draw(changes(sorted(first)))
    model = oracle.changed(first, change)
    start, end = data.draw(ranges(sorted({*first, *model})))
    with small_windows(2), new_database(first, scheme) as database, database.view(change) as view:
        before = database.revision
        for each in commits:
            database.commit(each)
        assert_reads_as(view, model, scheme)
        assert_reads_range_as(view, model, start, end)
        assert_proves_as(view, model, scheme, start, end)
        if database.revision == before:
            assert view.commit() == view.root
            assert_reads_as(database, model, scheme)
        else:
            with pytest.raises(merkledb.StaleView):
                view.commit()
            assert dict(database.items()) == functools.reduce(oracle.changed, commits, first)


def test_many_views_of_one_head_stand_side_by_side_until_one_of_them_is_committed() -> None:
    with new_database({b"a": b"1", b"ab": b"2"}) as database:
        views = [database.view({b"a": None, b"b": b"%d" % number}) for number in range(50)]
        assert len({view.root for view in views}) == 50
        assert all(dict(view.items()) == {b"ab": b"2", b"b": b"%d" % at} for at, view in enumerate(views))
        assert views[20].commit() == views[20].root
        for at, view in enumerate(views):
            with pytest.raises(merkledb.StaleView):
                view.commit()
            assert view[b"b"] == b"%d" % at
            view.close()
        assert (database.revision, database[b"b"]) == (2, b"20")


def test_a_view_commits_the_views_below_it_in_one_commit() -> None:
    with new_database({b"a": b"1"}) as database, database.view({b"b": b"2", b"c": b"3"}) as below:
        above = below.view({b"b": None, b"d": b"4"})
        assert above.commit() == above.root
        assert dict(database.items()) == {b"a": b"1", b"c": b"3", b"d": b"4"}
        assert database.revision == 2
        with pytest.raises(merkledb.StaleView):
            below.commit()
        with pytest.raises(merkledb.StaleView):
            above.commit()
        assert database.revision == 2


def test_a_view_is_committed_after_the_one_that_it_stands_on() -> None:
    with new_database({b"a": b"1"}) as database, database.view({b"b": b"2"}) as below:
        above, at_same_snapshot = below.view({b"a": None}), below.view({b"c": b"3"})
        below.commit()
        above.commit()
        assert dict(database.items()) == {b"b": b"2"}
        assert database.revision == 3
        with pytest.raises(merkledb.StaleView):
            at_same_snapshot.commit()
        top = above.view({b"d": b"4"})
        assert dict(top.items()) == {b"b": b"2", b"d": b"4"}
        top.commit()
        assert database.revision == 4


def test_a_commit_between_a_view_and_the_one_that_it_stands_on_makes_it_stale() -> None:
    with new_database({b"a": b"1"}) as database, database.view({b"b": b"2"}) as below:
        above = below.view({b"c": b"3"})
        below.commit()
        database.commit({b"d": b"4"})
        with pytest.raises(merkledb.StaleView):
            above.commit()
        assert dict(database.items()) == {b"a": b"1", b"b": b"2", b"d": b"4"}


def test_a_head_that_came_back_is_not_the_head_that_a_view_was_made_of() -> None:
    with new_database({b"a": b"1"}) as database, database.view({b"b": b"2"}) as view:
        database.commit({b"a": b"other"})
        database.commit({b"a": b"1"})
        with pytest.raises(merkledb.StaleView):
            view.commit()
        assert dict(database.items()) == {b"a": b"1"}


def test_a_commit_that_changes_nothing_makes_no_view_stale() -> None:
    with new_database({b"a": b"1"}) as database, database.view({b"b": b"2"}) as view:
        database.commit({b"a": b"1"})
        with database.view({b"absent": None}) as nothing:
            assert nothing.commit() == nothing.root == database.root
        view.commit()
        assert database.revision == 2


def test_a_view_that_changes_nothing_has_the_root_of_its_head_and_makes_no_revision() -> None:
    for store in ({}, {b"a": b"1"}, {b"": b"", b"a": b"1"}):
        for change in ({}, {b"absent": None}, dict(store)):
            with new_database(store) as database, database.view(change) as view:
                head = database.head
                assert_reads_as(view, store, database.scheme)
                assert view.commit() == view.root == database.root
                assert database.head == head


def test_a_view_of_deletions_ends_empty() -> None:
    store = {bytes([number]) * 3: b"v" for number in range(256)}
    with new_database(store) as database, database.view(dict.fromkeys(store)) as view:
        assert (view.root, len(view), list(view.items())) == (EMPTY_ROOT, 0, [])
        assert view.prove_range() == merkledb.RangeProof((), (), None, ())
        with view.view({b"": b"only"}) as above:
            assert dict(above.items()) == {b"": b"only"}
        assert view.commit() == EMPTY_ROOT
        database.check()


def test_the_changes_of_a_view_are_those_that_it_was_made_with() -> None:
    change: Change = {b"b": b"2"}
    with new_database({b"a": b"1"}) as database, database.view(change) as view:
        change[b"c"] = b"3"
        del change[b"b"]
        assert view.commit() == view.root
        assert dict(database.items()) == {b"a": b"1", b"b": b"2"}


def test_changes_that_no_database_can_hold_make_no_view() -> None:
    with new_database({b"a": b"1"}) as database, database.view({}) as view:
        makes: list[Callable[[Change], View]] = [database.view, view.view]
        for make in makes:
            with pytest.raises(merkledb.KeyTooLong):
                make({bytes(database.scheme.max_key_bytes + 1): b""})
            with pytest.raises(merkledb.ValueTooLong):
                make({b"key": bytes(merkledb.MAX_VALUE_BYTES + 1)})
            with pytest.raises(TypeError):
                make({b"key": "text"})  # type: ignore[dict-item]  # the wrong type is what is tested


def test_a_view_of_a_database_opened_for_reading_is_read_and_not_committed(tmp_path: Path) -> None:
    with merkledb.open(tmp_path / "store") as database:
        database.commit({b"a": b"1"})
    with merkledb.open(tmp_path / "store", readonly=True) as database, database.view({b"b": b"2"}) as view:
        assert dict(view.items()) == {b"a": b"1", b"b": b"2"}
        with pytest.raises(merkledb.ReadonlyDatabase):
            view.commit()


def test_a_closed_view_and_a_view_of_a_closed_database_say_so() -> None:
    def uses(view: View) -> list[Callable[[], object]]:
        return [lambda: view[b"a"], lambda: list(view.items()), view.prove_range, lambda: view.prove(b"a")]

    with new_database({b"a": b"1", b"b": b"2"}) as database:
        closed, open_ = database.view({b"b": b"3"}), database.view({b"b": b"4"})
        closed.close()
        closed.close()
        for use in uses(closed):
            with pytest.raises(merkledb.DatabaseClosed):
                use()
        assert dict(open_.items()) == {b"a": b"1", b"b": b"4"}
        database.close()
        for use in [*uses(open_), open_.commit]:
            with pytest.raises(merkledb.DatabaseClosed):
                use()
        open_.close()


def test_ranges_and_limits_that_make_no_sense_are_refused() -> None:
    with new_database({b"a": b"1"}) as database, database.view({b"b": b"2"}) as view:
        with pytest.raises(merkledb.InvalidRange):
            view.items(b"b", b"a")
        with pytest.raises(merkledb.InvalidRange):
            view.prove_range(b"b", b"a")
        with pytest.raises(ValueError, match="max_keys"):
            view.prove_range(max_keys=0)
        with pytest.raises(merkledb.LimitTooSmall):
            view.prove_range(max_bytes=0)


def test_a_thousand_views_stand_on_each_other() -> None:
    with new_database({b"a": b"1", b"b": b"2"}) as database, contextlib.ExitStack() as stack:
        view = stack.enter_context(database.view({b"c": b"first"}))
        for number in range(1200):
            view = stack.enter_context(
                view.view({number.to_bytes(2): b"%d" % number * 30, b"c": b"%d" % number})
            )
        assert (len(view), view[b"c"], view[b"a"]) == (1203, b"1199", b"1")
        assert [key for key, _ in view.items(b"\4\xae")] == [b"\4\xae", b"\4\xaf", b"a", b"b", b"c"]
        assert [key for key, _ in view.items(reverse=True, start=b"\4\xaf")] == [b"c", b"b", b"a", b"\4\xaf"]
        proof = view.prove(b"a")
        assert merkledb.verify_range(proof, view.root, b"a", b"a").values == (b"1",)
        assert view.commit() == view.root == database.root
        assert len(database) == 1203


class ReadInPlace(list[tuple[bytes, bytes | None]]):
    """A list of which nobody may take a stretch, and that counts what is read of it."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        assert not isinstance(index, slice)
        self.reads += 1
        return super().__getitem__(index)


def test_a_small_view_on_a_large_one_reads_as_much_as_it_changes() -> None:
    with (
        new_database({b"%d" % number: b"" for number in range(1000)}) as database,
        database.view({b"%d new" % number: b"1" for number in range(20_000)}) as large,
    ):
        (layer,) = large._layers
        counted = ReadInPlace(layer.ascending)
        large._layers = [layer._replace(ascending=counted)]
        with large.view({b"%d new" % number: b"2" for number in range(0, 20_000, 200)}) as small:
            # Each change reads a bucket of the view below: its pairs, and the search for the first.
            small.prove(b"777")
            next(small.items(reverse=True))
            assert counted.reads < 100 * 60
