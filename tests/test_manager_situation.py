"""The situation: one word for how a database stands to its peers, and the error when none of them helps."""

import pytest

from manager import (
    ConnectionLost,
    Facts,
    NoPeersLeft,
    NothingToShow,
    PairRefused,
    PairTooLarge,
    PeerError,
    PeerFacts,
    PeerFailure,
    PeerRefused,
    PeersOverloaded,
    PeerUnreachable,
    ProofRejected,
    RequestTimeout,
    RootLacking,
    Situation,
    TargetGone,
    VerificationFailed,
    situation_of,
)
from manager.goals import Target
from manager.hope import newest_announced, no_peers_left
from manager.progress import SeenHead
from merkledb import Reason
from syncproto import ErrorCode

OURS, NEWER, OTHER, OLD, OLDER = (letter * 32 for letter in (b"o", b"n", b"x", b"p", b"q"))


def peer(root: bytes | None = OURS, revision: int = 5, *, lacks_target: bool = False) -> PeerFacts:
    """A peer that is connected, and announces its heads."""
    return PeerFacts(
        is_connected=True,
        has_failed=False,
        lacks_target=lacks_target,
        is_followed=True,
        root=root,
        revision=revision,
    )


def away(*, has_failed: bool) -> PeerFacts:
    return PeerFacts(
        is_connected=False,
        has_failed=has_failed,
        lacks_target=False,
        is_followed=False,
        root=None,
        revision=0,
    )


IN_SYNC = Facts(
    head=OURS,
    revision=5,
    is_first=False,
    has_target=True,
    is_at_target=True,
    copies_in_full=False,
    peers=[peer()],
)
FOLLOWING = IN_SYNC._replace(follows_heads=True, known={3: OLDER, 4: OLD, 5: OURS})
LACKED = peer(NEWER, 6)._replace(lacks_head=True)
BEHIND = IN_SYNC._replace(is_at_target=False, peers=[peer(NEWER, 6)])
NEW = BEHIND._replace(head=None, revision=0, is_first=True, copies_in_full=True)
UNTRIED, FAILED = away(has_failed=False), away(has_failed=True)
FULL = FAILED._replace(is_overloaded=True)
DENYING = peer(NEWER, 6, lacks_target=True)

CASES: list[tuple[str, Facts, Situation]] = [
    ("a peer shows the same", IN_SYNC, Situation.IN_SYNC),
    ("a run without any peer", IN_SYNC._replace(peers=[]), Situation.IN_SYNC),
    ("nobody was tried yet", IN_SYNC._replace(peers=[UNTRIED]), Situation.IN_SYNC),
    ("a newer head nobody asked for", IN_SYNC._replace(peers=[peer(NEWER, 6)]), Situation.IN_SYNC),
    (
        "one shows the same, one is behind",
        IN_SYNC._replace(peers=[peer(), peer(OTHER, 4)]),
        Situation.IN_SYNC,
    ),
    ("a number that says nothing", IN_SYNC._replace(peers=[peer(OTHER, 5)]), Situation.IN_SYNC),
    ("another head of the same number", FOLLOWING._replace(peers=[peer(OTHER, 5)]), Situation.DIVERGED),
    ("another head of an older number", FOLLOWING._replace(peers=[peer(OTHER, 3)]), Situation.DIVERGED),
    ("the head of an older number", FOLLOWING._replace(peers=[peer(OLD, 4)]), Situation.PEERS_BEHIND),
    ("an older number that is not known", FOLLOWING._replace(peers=[peer(OTHER, 2)]), Situation.PEERS_BEHIND),
    (
        "one has diverged, one is behind",
        FOLLOWING._replace(peers=[peer(OTHER, 5), peer(OLD, 4)]),
        Situation.DIVERGED,
    ),
    ("one has diverged, one has not", FOLLOWING._replace(peers=[peer(OTHER, 5), peer()]), Situation.IN_SYNC),
    (
        "another head of the same number, long ago",
        FOLLOWING._replace(peers=[peer(OTHER, 5)._replace(is_followed=False)]),
        Situation.IN_SYNC,
    ),
    (
        "a newer head that is to be followed",
        FOLLOWING._replace(peers=[peer(NEWER, 6)]),
        Situation.CATCHING_UP,
    ),
    ("a newer head that cannot be had", FOLLOWING._replace(peers=[LACKED]), Situation.NO_PEER_KNOWS_TARGET),
    (
        "a newer head that cannot be had, and a peer that is behind",
        FOLLOWING._replace(peers=[LACKED, peer(OLD, 4)]),
        Situation.NO_PEER_KNOWS_TARGET,
    ),
    (
        "a newer head that cannot be had, and a peer that shows ours",
        FOLLOWING._replace(peers=[LACKED, peer()]),
        Situation.IN_SYNC,
    ),
    (
        "a newer head that cannot be had, and one that can",
        FOLLOWING._replace(peers=[LACKED, peer(NEWER, 7), peer()]),
        Situation.CATCHING_UP,
    ),
    ("no room", BEHIND._replace(has_no_room=True), Situation.NO_ROOM),
    ("no room, and nobody is there", BEHIND._replace(has_no_room=True, peers=[FAILED]), Situation.NO_ROOM),
    (
        "what was said long ago",
        IN_SYNC._replace(peers=[peer(OTHER, 4)._replace(is_followed=False)]),
        Situation.IN_SYNC,
    ),
    ("the only peer is behind", IN_SYNC._replace(peers=[peer(OTHER, 4)]), Situation.PEERS_BEHIND),
    ("the only peer has lost all", IN_SYNC._replace(peers=[peer(None, 0)]), Situation.PEERS_BEHIND),
    (
        "all that are there are behind",
        IN_SYNC._replace(peers=[peer(OTHER, 4), peer(None, 0), FAILED]),
        Situation.PEERS_BEHIND,
    ),
    (
        "no target, and the peer is behind",
        IN_SYNC._replace(has_target=False, is_at_target=False, peers=[peer(OTHER, 4)]),
        Situation.PEERS_BEHIND,
    ),
    ("in sync, and nobody is there", IN_SYNC._replace(peers=[FAILED, FAILED]), Situation.NO_PEER_REACHABLE),
    ("nobody is there", BEHIND._replace(peers=[FAILED]), Situation.NO_PEER_REACHABLE),
    ("nobody for a first copy", NEW._replace(peers=[FAILED]), Situation.NO_PEER_REACHABLE),
    ("one is full", BEHIND._replace(peers=[FAILED, FULL]), Situation.PEERS_OVERLOADED),
    ("in sync, and all are full", IN_SYNC._replace(peers=[FULL, FULL]), Situation.PEERS_OVERLOADED),
    ("one is full, another is there", IN_SYNC._replace(peers=[FULL, peer()]), Situation.IN_SYNC),
    ("one not tried yet", BEHIND._replace(peers=[FAILED, UNTRIED]), Situation.CATCHING_UP),
    ("changes", BEHIND, Situation.CATCHING_UP),
    ("ranges", BEHIND._replace(copies_in_full=True), Situation.COPYING),
    ("a first copy", NEW, Situation.FIRST_COPY),
    ("a first copy of which all is known", NEW._replace(copies_in_full=False), Situation.FIRST_COPY),
    ("nobody has it", BEHIND._replace(peers=[DENYING, DENYING]), Situation.NO_PEER_KNOWS_TARGET),
    ("nobody who is there has it", BEHIND._replace(peers=[DENYING, FAILED]), Situation.NO_PEER_KNOWS_TARGET),
    ("somebody has it", BEHIND._replace(peers=[DENYING, peer(NEWER, 6)]), Situation.CATCHING_UP),
    ("nobody has the first", NEW._replace(peers=[DENYING]), Situation.NO_PEER_KNOWS_TARGET),
    ("no target", NEW._replace(has_target=False), Situation.NO_TARGET),
    (
        "no target, and a peer without a root",
        NEW._replace(has_target=False, peers=[peer(None, 0)]),
        Situation.NO_TARGET,
    ),
]


@pytest.mark.parametrize(
    ("facts", "situation"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_the_facts_make_the_situation(facts: Facts, situation: Situation) -> None:
    assert situation_of(facts) is situation


def test_every_situation_is_documented_and_tested() -> None:
    assert {situation for _, _, situation in CASES} == set(Situation)
    assert all(f"- {situation.name}" in (Situation.__doc__ or "") for situation in Situation)


# What is announced.


def head(root: bytes | None, revision: int) -> SeenHead:
    return SeenHead(root, revision, 0, is_followed=True)


def test_the_announced_head_with_the_highest_revision_is_the_newest() -> None:
    heads = [head(OURS, 5), head(NEWER, 7), head(OTHER, 6), head(None, 0)]
    assert newest_announced(heads, above=5) == Target(NEWER, 7)


@pytest.mark.parametrize("heads", [[], [head(None, 0)], [head(OTHER, 5)], [head(OTHER, 5), head(None, 9)]])
def test_a_head_that_is_not_above_what_was_reached_is_nothing_new(heads: list[SeenHead]) -> None:
    assert newest_announced(heads, above=5) is None


# When none helps.

LOST = ConnectionLost("gone")
LACKING = RootLacking(NEWER, ErrorCode.HISTORY_GONE, "gone")
OVERLOAD = PeerRefused(ErrorCode.OVERLOADED, "full", 500)
LIE = ProofRejected(Reason.WRONG_ROOT, "")


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([LOST, RequestTimeout(20.0)], PeerUnreachable),
        ([LOST, LACKING], TargetGone),
        ([LACKING, PairRefused(9, 5)], PairTooLarge),
        ([LACKING, LIE, LOST], VerificationFailed),
        ([LOST, NothingToShow()], NoPeersLeft),
        ([LOST, OVERLOAD], PeersOverloaded),
        ([OVERLOAD, NothingToShow()], NoPeersLeft),
        ([OVERLOAD, LACKING], TargetGone),
    ],
)
def test_the_error_is_of_the_kind_that_says_most(errors: list[PeerError], kind: type[NoPeersLeft]) -> None:
    failures = tuple(PeerFailure(str(index), error) for index, error in enumerate(errors))
    error = no_peers_left(failures)
    assert type(error) is kind
    assert error.failures == failures
