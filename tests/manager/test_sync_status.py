"""The situation: one word for how a database stands to its peers, and the error when none of them helps."""

import pytest

from manager import (
    ConnectionLost,
    NoPeersLeft,
    PairTooLarge,
    PeerError,
    PeerFailure,
    PeerNotReady,
    PeerRefused,
    PeersOverloaded,
    PeerStatusFacts,
    PeerUnreachable,
    ProofRejected,
    RequestTimeout,
    RootUnavailable,
    StatusFacts,
    SyncStatus,
    TargetGone,
    ValueTooLargeForPeer,
    VerificationFailed,
    status_of,
)
from manager.errors import no_peers_left
from manager.scheduling.pivot import SeenHead, Target, newest_announced
from merkledb import Reason
from syncproto import ErrorCode

OURS, NEWER, OTHER, OLD, OLDER = (letter * 32 for letter in (b"o", b"n", b"x", b"p", b"q"))


def peer(root: bytes | None = OURS, revision: int = 5, *, lacks_target: bool = False) -> PeerStatusFacts:
    """A peer that is connected, and announces its heads."""
    return PeerStatusFacts(
        is_connected=True,
        has_failed=False,
        lacks_target=lacks_target,
        is_followed=True,
        root=root,
        revision=revision,
    )


def away(*, has_failed: bool) -> PeerStatusFacts:
    return PeerStatusFacts(
        is_connected=False,
        has_failed=has_failed,
        lacks_target=False,
        is_followed=False,
        root=None,
        revision=0,
    )


IN_SYNC = StatusFacts(
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

CASES: list[tuple[str, StatusFacts, SyncStatus]] = [
    ("a peer shows the same", IN_SYNC, SyncStatus.IN_SYNC),
    ("a run without any peer", IN_SYNC._replace(peers=[]), SyncStatus.IN_SYNC),
    ("nobody was tried yet", IN_SYNC._replace(peers=[UNTRIED]), SyncStatus.IN_SYNC),
    ("a newer head nobody asked for", IN_SYNC._replace(peers=[peer(NEWER, 6)]), SyncStatus.IN_SYNC),
    (
        "one shows the same, one is behind",
        IN_SYNC._replace(peers=[peer(), peer(OTHER, 4)]),
        SyncStatus.IN_SYNC,
    ),
    ("a number that says nothing", IN_SYNC._replace(peers=[peer(OTHER, 5)]), SyncStatus.IN_SYNC),
    ("another head of the same number", FOLLOWING._replace(peers=[peer(OTHER, 5)]), SyncStatus.DIVERGED),
    ("another head of an older number", FOLLOWING._replace(peers=[peer(OTHER, 3)]), SyncStatus.DIVERGED),
    ("the head of an older number", FOLLOWING._replace(peers=[peer(OLD, 4)]), SyncStatus.PEERS_BEHIND),
    (
        "an older number that is not known",
        FOLLOWING._replace(peers=[peer(OTHER, 2)]),
        SyncStatus.PEERS_BEHIND,
    ),
    (
        "one has diverged, one is behind",
        FOLLOWING._replace(peers=[peer(OTHER, 5), peer(OLD, 4)]),
        SyncStatus.DIVERGED,
    ),
    ("one has diverged, one has not", FOLLOWING._replace(peers=[peer(OTHER, 5), peer()]), SyncStatus.IN_SYNC),
    (
        "another head of the same number, long ago",
        FOLLOWING._replace(peers=[peer(OTHER, 5)._replace(is_followed=False)]),
        SyncStatus.IN_SYNC,
    ),
    (
        "a newer head that is to be followed",
        FOLLOWING._replace(peers=[peer(NEWER, 6)]),
        SyncStatus.CATCHING_UP,
    ),
    ("a newer head that cannot be had", FOLLOWING._replace(peers=[LACKED]), SyncStatus.NO_PEER_KNOWS_TARGET),
    (
        "a newer head that cannot be had, and a peer that is behind",
        FOLLOWING._replace(peers=[LACKED, peer(OLD, 4)]),
        SyncStatus.NO_PEER_KNOWS_TARGET,
    ),
    (
        "a newer head that cannot be had, and a peer that shows ours",
        FOLLOWING._replace(peers=[LACKED, peer()]),
        SyncStatus.IN_SYNC,
    ),
    (
        "a newer head that cannot be had, and one that can",
        FOLLOWING._replace(peers=[LACKED, peer(NEWER, 7), peer()]),
        SyncStatus.CATCHING_UP,
    ),
    ("no room", BEHIND._replace(has_no_room=True), SyncStatus.NO_ROOM),
    ("no room, and nobody is there", BEHIND._replace(has_no_room=True, peers=[FAILED]), SyncStatus.NO_ROOM),
    (
        "what was said long ago",
        IN_SYNC._replace(peers=[peer(OTHER, 4)._replace(is_followed=False)]),
        SyncStatus.IN_SYNC,
    ),
    ("the only peer is behind", IN_SYNC._replace(peers=[peer(OTHER, 4)]), SyncStatus.PEERS_BEHIND),
    ("the only peer has lost all", IN_SYNC._replace(peers=[peer(None, 0)]), SyncStatus.PEERS_BEHIND),
    (
        "all that are there are behind",
        IN_SYNC._replace(peers=[peer(OTHER, 4), peer(None, 0), FAILED]),
        SyncStatus.PEERS_BEHIND,
    ),
    (
        "no target, and the peer is behind",
        IN_SYNC._replace(has_target=False, is_at_target=False, peers=[peer(OTHER, 4)]),
        SyncStatus.PEERS_BEHIND,
    ),
    ("in sync, and nobody is there", IN_SYNC._replace(peers=[FAILED, FAILED]), SyncStatus.NO_PEER_REACHABLE),
    ("nobody is there", BEHIND._replace(peers=[FAILED]), SyncStatus.NO_PEER_REACHABLE),
    ("nobody for a first copy", NEW._replace(peers=[FAILED]), SyncStatus.NO_PEER_REACHABLE),
    ("one is full", BEHIND._replace(peers=[FAILED, FULL]), SyncStatus.PEERS_OVERLOADED),
    ("in sync, and all are full", IN_SYNC._replace(peers=[FULL, FULL]), SyncStatus.PEERS_OVERLOADED),
    ("one is full, another is there", IN_SYNC._replace(peers=[FULL, peer()]), SyncStatus.IN_SYNC),
    ("one not tried yet", BEHIND._replace(peers=[FAILED, UNTRIED]), SyncStatus.CATCHING_UP),
    ("changes", BEHIND, SyncStatus.CATCHING_UP),
    ("ranges", BEHIND._replace(copies_in_full=True), SyncStatus.COPYING),
    ("a first copy", NEW, SyncStatus.FIRST_COPY),
    ("a first copy of which all is known", NEW._replace(copies_in_full=False), SyncStatus.FIRST_COPY),
    ("nobody has it", BEHIND._replace(peers=[DENYING, DENYING]), SyncStatus.NO_PEER_KNOWS_TARGET),
    ("nobody who is there has it", BEHIND._replace(peers=[DENYING, FAILED]), SyncStatus.NO_PEER_KNOWS_TARGET),
    ("somebody has it", BEHIND._replace(peers=[DENYING, peer(NEWER, 6)]), SyncStatus.CATCHING_UP),
    ("nobody has the first", NEW._replace(peers=[DENYING]), SyncStatus.NO_PEER_KNOWS_TARGET),
    ("no target", NEW._replace(has_target=False), SyncStatus.NO_TARGET),
    (
        "no target, and a peer without a root",
        NEW._replace(has_target=False, peers=[peer(None, 0)]),
        SyncStatus.NO_TARGET,
    ),
]


@pytest.mark.parametrize(("facts", "status"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_facts_make_the_situation(facts: StatusFacts, status: SyncStatus) -> None:
    assert status_of(facts) is status


def test_every_situation_is_documented_and_tested() -> None:
    assert {status for _, _, status in CASES} == set(SyncStatus)
    assert all(f"- {status.name}" in (SyncStatus.__doc__ or "") for status in SyncStatus)


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
LACKING = RootUnavailable(NEWER, ErrorCode.HISTORY_GONE, "gone")
OVERLOAD = PeerRefused(ErrorCode.OVERLOADED, "full", 500)
LIE = ProofRejected(Reason.WRONG_ROOT, "")


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([LOST, LOST], PeerUnreachable),
        ([LOST, RequestTimeout(20.0)], NoPeersLeft),
        ([LOST, LACKING], TargetGone),
        ([LACKING, ValueTooLargeForPeer(9, 5)], PairTooLarge),
        ([LACKING, LIE, LOST], VerificationFailed),
        ([LOST, PeerNotReady()], NoPeersLeft),
        ([LOST, OVERLOAD], PeersOverloaded),
        ([OVERLOAD, PeerNotReady()], NoPeersLeft),
        ([OVERLOAD, LACKING], TargetGone),
    ],
)
def test_the_error_is_of_the_kind_that_says_most(errors: list[PeerError], kind: type[NoPeersLeft]) -> None:
    failures = tuple(PeerFailure(str(index), error) for index, error in enumerate(errors))
    error = no_peers_left(failures)
    assert type(error) is kind
    assert error.failures == failures
