"""The pivot that follows the target, and the backlog where work waits for it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager import ProofRejected
from manager.keyspace.keyspace import key_after, key_before
from manager.scheduling.backlog import MAX_PIECES, Backlog, Suspicion, Work
from manager.scheduling.pivot import PivotTracker, Target
from merkledb import Reason

A, B, C, D = (Target(letter * 32, number) for number, letter in enumerate((b"a", b"b", b"c", b"d")))
# No pivot, so that its answers prove nothing of any.
OLDER = b"o" * 32
MAX_KEY_BYTES = 63
MAX_BYTES = 1 << 20


def pivots_at(target: Target, answers: int = 8) -> PivotTracker:
    """Return pivots that went to a target at 0 seconds, with a patience of 5, and got some answers."""
    pivots = PivotTracker(5.0)
    pivots.aim(target)
    pivots.advance(0.0)
    for _ in range(answers):
        pivots.count_answer(OLDER, 0.0)
    return pivots


def test_there_is_no_pivot_before_a_target() -> None:
    pivots = PivotTracker(5.0)
    assert pivots.is_newest
    assert pivots.pivot is None
    assert pivots.gives_way_at == float("inf")


def test_a_pivot_that_is_the_newest_target_never_gives_way() -> None:
    assert pivots_at(A).gives_way_at == float("inf")


def test_a_pivot_keeps_back_newer_targets_for_its_time() -> None:
    pivots = pivots_at(A)
    pivots.aim(B)
    pivots.aim(C)
    assert pivots.pivot == A
    assert pivots.gives_way_at == 5.0
    pivots.advance(5.0)
    assert pivots.pivot == C
    assert pivots.is_newest


def test_a_pivot_that_has_got_few_answers_is_left_more_time_but_not_for_ever() -> None:
    pivots = pivots_at(A, answers=7)
    pivots.aim(B)
    assert pivots.gives_way_at == 60.0
    pivots.count_answer(OLDER, 0.0)
    assert pivots.gives_way_at == 5.0


def test_patience_doubles_while_it_is_told_to_and_is_the_usual_one_again_afterwards() -> None:
    pivots = pivots_at(A)
    waits = []
    for number, more in enumerate((True, True, True, False)):
        pivots.aim(Target(bytes([number]) * 32))
        waits.append(pivots.gives_way_at)
        pivots.advance(0.0, more_patience=more)
        for _ in range(8):
            pivots.count_answer(OLDER, 0.0)
    pivots.aim(A)
    assert [*waits, pivots.gives_way_at] == [5.0, 10.0, 20.0, 40.0, 5.0]


def test_a_target_that_went_away_and_came_back_is_the_pivot_still() -> None:
    pivots = pivots_at(A)
    pivots.aim(B)
    pivots.aim(A)
    assert pivots.gives_way_at == float("inf")


def test_the_number_of_a_pivot_may_become_known_later() -> None:
    pivots = pivots_at(Target(A.root))
    assert pivots.revision_of(A.root) is None
    pivots.aim(A)
    assert pivots.revision_of(A.root) == A.revision
    pivots.aim(B)
    pivots.advance(1.0)
    assert pivots.revision_of(A.root) == A.revision
    assert pivots.revision_of(b"?" * 32) is None


def test_the_numbers_of_pivots_are_not_remembered_without_end() -> None:
    pivots = pivots_at(A)
    for number in range(1000):
        pivots.aim(Target(number.to_bytes(32), number))
        pivots.advance(0.0)
    assert pivots.revision_of(A.root) is None
    assert len(pivots._revisions) == 64


# Backlog.


def backlog_with(*pieces: Work, pivot: Target = D) -> Backlog:
    backlog = Backlog(MAX_KEY_BYTES, 2.0, pieces)
    backlog.set_pivot(pivot.root)
    return backlog


def piece(start: bytes, end: bytes | None, root: Target | None = None) -> Work:
    return Work(start, end, 0.25, None if root is None else root.root)


def taken(backlog: Backlog, now: float = 0.0, peer: str = "peer") -> list[bytes]:
    """Take everything, and return the starts."""
    starts = []
    while isinstance(work := backlog.take(peer, now, MAX_BYTES), Work):
        starts.append(work.start)
    return starts


def test_what_is_at_the_pivot_is_done() -> None:
    backlog = backlog_with(piece(b"", b"m", D), piece(b"m\x00", None, D))
    assert not backlog
    assert taken(backlog) == []
    assert len(backlog.pieces()) == 2


def test_unsynced_work_is_taken_from_left_to_right() -> None:
    backlog = backlog_with(
        piece(b"", b"c"), piece(b"c\x00", b"f", A), piece(b"f\x00", b"k"), piece(b"x", None, D)
    )
    assert taken(backlog) == [b"", b"c\x00", b"f\x00"]


def test_unsynced_work_and_stale_work_are_served_by_turns_the_oldest_pivot_first() -> None:
    backlog = backlog_with(*(piece(bytes([at]), bytes([at])) for at in range(3)), pivot=A)
    for at, (root, pivot) in enumerate([(A, B), (B, C), (C, D)]):
        backlog.put([piece(bytes([at + 10]), bytes([at + 10]), root)])
        backlog.set_pivot(pivot.root)
    assert taken(backlog) == [b"\x0a", b"\x00", b"\x0b", b"\x01", b"\x0c", b"\x02"]


def test_stale_work_is_brought_along_without_any_unsynced_work() -> None:
    backlog = backlog_with(piece(b"", None))
    backlog.take("peer", 0.0, MAX_BYTES)
    backlog.put([piece(b"", b"c", C), piece(b"d", b"e", B)])
    assert taken(backlog) == [b"", b"d"]


def test_what_is_at_a_root_is_done_again_when_that_is_the_pivot_again() -> None:
    backlog = backlog_with(piece(b"", b"m", A), piece(b"m\x00", None, B), pivot=A)
    assert taken(backlog) == [b"m\x00"]
    backlog.put([piece(b"m\x00", None, A)])
    backlog.set_pivot(B.root)
    assert backlog
    backlog.set_pivot(A.root)
    assert not backlog
    assert sum(work.share for work in backlog.pieces()) == 0.5


def test_only_what_is_at_the_same_root_is_taken_together() -> None:
    backlog = backlog_with(
        piece(b"", b"c", A), piece(b"c\x00", b"f", A), piece(b"f\x00", b"k", B), piece(b"k\x00", None, B)
    )
    for root in (A, B):
        backlog.learn(root.root, 0.5, 1, 0.5, 0.5)
    first, second = backlog.take("peer", 0.0, MAX_BYTES), backlog.take("peer", 0.0, MAX_BYTES)
    assert first == Work(b"", b"f", 0.5, A.root)
    assert second == Work(b"f\x00", None, 0.5, B.root)


def test_how_much_is_taken_together_follows_what_is_at_the_same_root() -> None:
    pieces = [Work(bytes([at]), bytes([at]) + b"\xff" * 62, 0.1, A.root) for at in range(10)]
    assert key_after(pieces[0].end or b"", MAX_KEY_BYTES) == pieces[1].start
    backlog = backlog_with(*pieces)
    backlog.learn(None, 1.0, 1, 0.001, 1.0)
    backlog.learn(A.root, 1.0, 1, 0.5, 1.0)
    work = backlog.take("peer", 0.0, MAX_BYTES)
    assert isinstance(work, Work)
    assert work.share == pytest.approx(0.4)


def suspicion_of(peer: str, since: float = 0.0) -> Suspicion:
    return Suspicion(peer, ProofRejected(Reason.WRONG_ROOT, ""), None, since)


def test_suspected_work_is_for_others_first() -> None:
    suspected = piece(b"a", b"b", A)._replace(suspicion=suspicion_of("liar"))
    backlog = backlog_with(piece(b"x", None))
    backlog.put([suspected])
    assert backlog.take("liar", 1.9, MAX_BYTES) == piece(b"x", None)
    assert backlog.take("liar", 1.9, MAX_BYTES) == 2.0
    assert backlog
    assert backlog.take("honest", 0.0, MAX_BYTES) == suspected
    assert backlog.take("liar", 1.9, MAX_BYTES) == float("inf")
    backlog.put([suspected])
    assert backlog.take("liar", 2.0, MAX_BYTES) == suspected


def test_more_pieces_than_there_may_be_are_joined_and_nothing_is_lost() -> None:
    starts = [number.to_bytes(2) for number in range(2 * MAX_PIECES)]
    ends = [*(key_before(start, 2) for start in starts[1:]), None]
    backlog = Backlog(2, 2.0, map(Work, starts, ends, [1 / len(starts)] * len(starts)))
    found = backlog.pieces()
    assert len(found) <= MAX_PIECES
    assert (found[0].start, found[-1].end) == (starts[0], None)
    assert all(left.end == key_before(right.start, 2) for left, right in pairwise(found))
    assert sum(work.share for work in found) == pytest.approx(1.0)


ROOTS = st.sampled_from([None, A.root, B.root, C.root, D.root])


@given(
    st.lists(ROOTS, min_size=1, max_size=150), st.lists(st.sampled_from([A, B, C, D]), max_size=8), st.data()
)
def test_whatever_the_pivots_nothing_is_lost_and_nothing_is_there_twice(
    roots: list[bytes | None], pivots: list[Target], data: st.DataObject
) -> None:
    ends = [bytes([at]) + b"\xff" * (MAX_KEY_BYTES - 1) for at in range(len(roots) - 1)]
    starts = [b"", *(key_after(end, MAX_KEY_BYTES) or b"" for end in ends)]
    pieces = [
        Work(start, end, 1 / len(roots), root)
        for start, end, root in zip(starts, [*ends, None], roots, strict=True)
    ]
    backlog = Backlog(MAX_KEY_BYTES, 2.0, pieces)
    for pivot in pivots:
        backlog.set_pivot(pivot.root)
        for _ in range(data.draw(st.integers(0, 5))):
            work = backlog.take("peer", 0.0, MAX_BYTES)
            if not isinstance(work, Work):
                break
            assert work.root != pivot.root
            backlog.put([work._replace(root=pivot.root)])
    found = backlog.pieces()
    assert found[0].start == b""
    assert found[-1].end is None
    for left, right in pairwise(found):
        assert left.end is not None
        assert key_after(left.end, MAX_KEY_BYTES) == right.start
    assert sum(work.share for work in found) == pytest.approx(1.0)
