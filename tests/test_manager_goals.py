"""The goal that follows the target, and the shelves where work waits for it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager import ProofRejected
from manager.goals import Goals, Target
from manager.keyspace import key_after
from manager.shelves import Shelves
from manager.work import Doubt, Work
from merkledb import Reason

A, B, C, D = (Target(letter * 32, number) for number, letter in enumerate((b"a", b"b", b"c", b"d")))
MAX_KEY_BYTES = 63
MAX_BYTES = 1 << 20


def goals_at(target: Target, answers: int = 8) -> Goals:
    """Return goals that went to a target at 0 seconds, with a patience of 5, and got some answers."""
    goals = Goals(5.0)
    goals.aim(target)
    goals.advance(0.0)
    for _ in range(answers):
        goals.count_answer()
    return goals


def test_there_is_no_goal_before_a_target() -> None:
    goals = Goals(5.0)
    assert goals.is_newest
    assert goals.goal is None
    assert goals.gives_way_at == float("inf")


def test_a_goal_that_is_the_newest_target_never_gives_way() -> None:
    assert goals_at(A).gives_way_at == float("inf")


def test_a_goal_keeps_back_newer_targets_for_its_time() -> None:
    goals = goals_at(A)
    goals.aim(B)
    goals.aim(C)
    assert goals.goal == A
    assert goals.gives_way_at == 5.0
    goals.advance(5.0)
    assert goals.goal == C
    assert goals.is_newest


def test_a_goal_that_has_got_few_answers_is_left_more_time_but_not_for_ever() -> None:
    goals = goals_at(A, answers=7)
    goals.aim(B)
    assert goals.gives_way_at == 60.0
    goals.count_answer()
    assert goals.gives_way_at == 5.0


def test_patience_doubles_while_it_is_told_to_and_is_the_usual_one_again_afterwards() -> None:
    goals = goals_at(A)
    waits = []
    for number, more in enumerate((True, True, True, False)):
        goals.aim(Target(bytes([number]) * 32))
        waits.append(goals.gives_way_at)
        goals.advance(0.0, more_patience=more)
        for _ in range(8):
            goals.count_answer()
    goals.aim(A)
    assert [*waits, goals.gives_way_at] == [5.0, 10.0, 20.0, 40.0, 5.0]


def test_a_target_that_went_away_and_came_back_is_the_goal_still() -> None:
    goals = goals_at(A)
    goals.aim(B)
    goals.aim(A)
    assert goals.gives_way_at == float("inf")


def test_the_number_of_a_goal_may_become_known_later() -> None:
    goals = goals_at(Target(A.root))
    assert goals.revision_of(A.root) is None
    goals.aim(A)
    assert goals.revision_of(A.root) == A.revision
    goals.aim(B)
    goals.advance(1.0)
    assert goals.revision_of(A.root) == A.revision
    assert goals.revision_of(b"?" * 32) is None


def test_the_numbers_of_goals_are_not_remembered_without_end() -> None:
    goals = goals_at(A)
    for number in range(1000):
        goals.aim(Target(number.to_bytes(32), number))
        goals.advance(0.0)
    assert goals.revision_of(A.root) is None
    assert len(goals._revisions) == 64


# Shelves.


def shelves_with(*pieces: Work, goal: Target = D) -> Shelves:
    shelves = Shelves(MAX_KEY_BYTES, doubt_seconds=2.0)
    shelves.begin(pieces)
    shelves.set_goal(goal.root)
    return shelves


def piece(start: bytes, end: bytes | None, root: Target | None = None) -> Work:
    return Work(start, end, 0.25, None if root is None else root.root)


def taken(shelves: Shelves, now: float = 0.0, peer: str = "peer") -> list[bytes]:
    """Take everything, and return the starts."""
    starts = []
    while (work := shelves.take(peer, now, MAX_BYTES)) is not None:
        starts.append(work.start)
    return starts


def test_what_is_at_the_goal_rests() -> None:
    shelves = shelves_with(piece(b"", b"m", D), piece(b"m\x00", None, D))
    assert not shelves
    assert taken(shelves) == []
    assert len(shelves.pieces()) == 2


def test_the_base_is_taken_from_left_to_right() -> None:
    shelves = shelves_with(
        piece(b"", b"c"), piece(b"c\x00", b"f", A), piece(b"f\x00", b"k"), piece(b"x", None, D)
    )
    assert taken(shelves) == [b"", b"c\x00", b"f\x00"]


def test_the_base_and_what_was_left_behind_are_served_by_turns_the_oldest_goal_first() -> None:
    shelves = shelves_with(*(piece(bytes([at]), bytes([at])) for at in range(3)), goal=A)
    for at, (root, goal) in enumerate([(A, B), (B, C), (C, D)]):
        shelves.put([piece(bytes([at + 10]), bytes([at + 10]), root)])
        shelves.set_goal(goal.root)
    assert taken(shelves) == [b"\x0a", b"\x00", b"\x0b", b"\x01", b"\x0c", b"\x02"]


def test_what_is_left_behind_is_brought_along_without_any_base() -> None:
    shelves = shelves_with(piece(b"", None))
    shelves.take("peer", 0.0, MAX_BYTES)
    shelves.put([piece(b"", b"c", C), piece(b"d", b"e", B)])
    assert taken(shelves) == [b"", b"d"]


def test_what_is_at_a_root_rests_again_when_that_is_the_goal_again() -> None:
    shelves = shelves_with(piece(b"", b"m", A), piece(b"m\x00", None, B), goal=A)
    assert taken(shelves) == [b"m\x00"]
    shelves.put([piece(b"m\x00", None, A)])
    shelves.set_goal(B.root)
    assert shelves
    shelves.set_goal(A.root)
    assert not shelves
    assert sum(work.share for work in shelves.pieces()) == 0.5


def test_only_what_is_at_the_same_root_is_taken_together() -> None:
    shelves = shelves_with(
        piece(b"", b"c", A), piece(b"c\x00", b"f", A), piece(b"f\x00", b"k", B), piece(b"k\x00", None, B)
    )
    for root in (A, B):
        shelves.learn(root.root, 0.5, 1, 0.5)
    first, second = shelves.take("peer", 0.0, MAX_BYTES), shelves.take("peer", 0.0, MAX_BYTES)
    assert first == Work(b"", b"f", 0.5, A.root)
    assert second == Work(b"f\x00", None, 0.5, B.root)


def test_how_much_is_taken_together_follows_what_is_at_the_same_root() -> None:
    pieces = [Work(bytes([at]), bytes([at]) + b"\xff" * 62, 0.1, A.root) for at in range(10)]
    assert key_after(pieces[0].end or b"", MAX_KEY_BYTES) == pieces[1].start
    shelves = shelves_with(*pieces)
    shelves.learn(None, 1.0, 1, 0.001)
    shelves.learn(A.root, 1.0, 1, 0.5)
    work = shelves.take("peer", 0.0, MAX_BYTES)
    assert work is not None
    assert work.share == pytest.approx(0.4)


def doubt_of(peer: str, since: float = 0.0) -> Doubt:
    return Doubt(peer, ProofRejected(Reason.WRONG_ROOT, ""), None, since)


def test_doubted_work_is_for_others_first() -> None:
    doubted = piece(b"a", b"b", A)._replace(doubt=doubt_of("liar"))
    shelves = shelves_with(piece(b"x", None))
    shelves.put([doubted])
    assert shelves.next_doubt_end(0.5) == 2.0
    assert shelves.take("liar", 1.9, MAX_BYTES) == piece(b"x", None)
    assert shelves.take("liar", 1.9, MAX_BYTES) is None
    assert shelves
    assert shelves.take("honest", 0.0, MAX_BYTES) == doubted
    shelves.put([doubted])
    assert shelves.next_doubt_end(2.0) == float("inf")
    assert shelves.take("liar", 2.0, MAX_BYTES) == doubted


ROOTS = st.sampled_from([None, A.root, B.root, C.root, D.root])


@given(
    st.lists(ROOTS, min_size=1, max_size=150), st.lists(st.sampled_from([A, B, C, D]), max_size=8), st.data()
)
def test_whatever_the_goals_nothing_is_lost_and_nothing_is_there_twice(
    roots: list[bytes | None], goals: list[Target], data: st.DataObject
) -> None:
    ends = [bytes([at]) + b"\xff" * (MAX_KEY_BYTES - 1) for at in range(len(roots) - 1)]
    starts = [b"", *(key_after(end, MAX_KEY_BYTES) or b"" for end in ends)]
    pieces = [
        Work(start, end, 1 / len(roots), root)
        for start, end, root in zip(starts, [*ends, None], roots, strict=True)
    ]
    shelves = Shelves(MAX_KEY_BYTES, 2.0)
    shelves.begin(pieces)
    for goal in goals:
        shelves.set_goal(goal.root)
        for _ in range(data.draw(st.integers(0, 5))):
            work = shelves.take("peer", 0.0, MAX_BYTES)
            if work is None:
                break
            assert work.root != goal.root
            shelves.put([work._replace(root=goal.root)])
    found = shelves.pieces()
    assert found[0].start == b""
    assert found[-1].end is None
    for left, right in pairwise(found):
        assert left.end is not None
        assert key_after(left.end, MAX_KEY_BYTES) == right.start
    assert sum(work.share for work in found) == pytest.approx(1.0)
