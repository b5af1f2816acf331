"""Lies about changes: who lies is dropped and named, and nobody is for content that is not as believed."""

import dataclasses
import itertools
import logging
import random
from collections.abc import Callable

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from manager import Limits, PeerState, Progress, VerificationFailed
from manager.keyspace.range_map import RangeMap
from manager.scheduling.checkpoint import decode_checkpoint, encode_checkpoint
from manager.transfer.verification import has_no_changes
from merkledb import Branch, ChangeProof, Database, Reason
from syncproto import Changes, Error, ErrorCode, GetChanges, Range
from tests.support import fake_servers
from tests.support.databases import new_database
from tests.support.fake_servers import Answer, Asked, ClientConnection, FakeServer, ScriptedServer
from tests.support.moving_source import Source, new_source
from tests.support.syncing import SMALL, assert_same, some_pairs, sync_from, sync_in_part
from tests.support.thoroughness import amount

Tampering = Callable[[ChangeProof], ChangeProof]


def altered_value(proof: ChangeProof) -> ChangeProof:
    return proof._replace(values=(b"altered", *proof.values[1:]))


def omitted_change(proof: ChangeProof) -> ChangeProof:
    return proof._replace(keys=proof.keys[1:], values=proof.values[1:])


def invented_change(proof: ChangeProof) -> ChangeProof:
    first, *others = proof.keys
    keys = (first, first + b"\x00", *others)
    end = proof.end if others or proof.end is None else keys[-1]
    return ChangeProof(keys, (proof.values[0], b"invented", *proof.values[1:]), end, proof.boundary)


def altered_key(proof: ChangeProof) -> ChangeProof:
    return proof._replace(keys=(proof.keys[0][:-1], *proof.keys[1:]))


def deletion_of_all(proof: ChangeProof) -> ChangeProof:
    return proof._replace(values=(None,) * len(proof.values))


def early_end(proof: ChangeProof) -> ChangeProof:
    return proof._replace(end=proof.keys[0][:-1])


def swapped_changes(proof: ChangeProof) -> ChangeProof:
    return (
        proof._replace(keys=(proof.keys[-1], *proof.keys[:-1])) if len(proof.keys) > 1 else early_end(proof)
    )


def without_boundary(proof: ChangeProof) -> ChangeProof:
    return proof._replace(boundary=())


def other_branch(proof: ChangeProof) -> ChangeProof:
    first, *others = proof.boundary
    children = tuple((token, bytes(32)) for token, _ in first.children)
    return proof._replace(boundary=(Branch(first.path, first.digest, children), *others))


# Lies that a look at the proof alone cannot tell from an honest proof for another content.
DOUBTFUL: dict[str, Tampering] = {
    "an altered value": altered_value,
    "an omitted change": omitted_change,
    "an invented change": invented_change,
    "an altered key": altered_key,
    "all changes as deletions": deletion_of_all,
}
# The same, where the proof has a boundary at all.
DOUBTFUL_BOUNDARIES: dict[str, Tampering] = {"no boundary": without_boundary, "another branch": other_branch}


async def no_proof(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Send bytes that are no proof where changes are asked for."""
    if isinstance(request, GetChanges):
        await conversation.send(Changes(request.request_id, b"\x93\x90\x90\xc0"))
    else:
        await conversation.send(server.honest_answer(request))


async def lying_range(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
    """Send a range that is not true where changes are asked for, as if history did not reach back."""
    if isinstance(request, GetChanges):
        proof = server.proof(request)
        lie = proof._replace(values=(b"altered", *proof.values[1:]))
        await conversation.send(Range(request.request_id, lie.encode()))
    else:
        await conversation.send(server.honest_answer(request))


PLAIN: dict[str, tuple[Answer, Reason]] = {
    "an end that is not the last key": (fake_servers.tamper_changes(early_end), Reason.WRONG_END),
    "changes out of order": (fake_servers.tamper_changes(swapped_changes), Reason.KEYS_OUT_OF_ORDER),
    "bytes that are no proof": (no_proof, Reason.MALFORMED),
    "a range that is not true": (lying_range, Reason.WRONG_ROOT),
}


async def a_copy_behind(source: Source, copy: Database, changes: int = 60) -> None:
    """Make a copy, and let the source go on."""
    await sync_from([FakeServer(source.database)], source.root, copy)
    source.change(changes, random.Random(1))


async def sync_from_liar_and_honest(liar: FakeServer, source: Source, copy: Database) -> Progress:
    honest = ScriptedServer(source.database, fake_servers.after(0.3), "honest")
    return await sync_from([liar, honest], source.root, copy)


def assert_dropped_and_named(progress: Progress, caplog: pytest.LogCaptureFixture) -> None:
    liar, honest = progress.peers
    assert liar.state is PeerState.BANNED
    assert liar.reason.startswith("invalid proof: ")
    assert liar.keys == 0
    assert honest.state is PeerState.CONNECTED
    assert "dropped peer liar: invalid proof" in caplog.text
    assert "dropped peer honest" not in caplog.text


@pytest.mark.parametrize("name", DOUBTFUL | DOUBTFUL_BOUNDARIES)
async def test_a_liar_about_changes_is_dropped_and_named_when_another_peer_can_show_that_it_lied(
    name: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    tampering = (DOUBTFUL | DOUBTFUL_BOUNDARIES)[name]
    with new_source(some_pairs(500)) as source, new_database() as copy:
        await a_copy_behind(source, copy)
        liar = ScriptedServer(source.database, fake_servers.tamper_changes(tampering), "liar")
        progress = await sync_from_liar_and_honest(liar, source, copy)
        assert_same(copy, source.database)
    assert_dropped_and_named(progress, caplog)
    assert progress.keys == 0, "nothing had to be copied in full"


async def test_a_peer_that_is_too_busy_to_show_that_nothing_has_changed_is_asked_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    refusals = 0

    async def busy_at_first(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        nonlocal refusals
        is_asked = isinstance(request, GetChanges) and request.old_root == request.new_root
        if is_asked and refusals < 3:
            refusals += 1
            await conversation.send(Error(request.request_id, ErrorCode.OVERLOADED, "busy", 10))
        else:
            await fake_servers.after(0.3)(server, conversation, request)

    with new_source(some_pairs(500)) as source, new_database() as copy:
        await a_copy_behind(source, copy)
        liar = ScriptedServer(source.database, fake_servers.tamper_changes(altered_value), "liar")
        honest = ScriptedServer(source.database, busy_at_first, "honest")
        progress = await sync_from([liar, honest], source.root, copy)
        assert_same(copy, source.database)
    assert refusals
    assert_dropped_and_named(progress, caplog)
    assert progress.keys == 0, "nothing had to be copied in full"


@pytest.mark.parametrize(("script", "reason"), PLAIN.values(), ids=PLAIN)
async def test_a_proof_that_could_hold_for_no_content_is_a_lie_by_itself(
    script: Answer, reason: Reason, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with new_source(some_pairs(500)) as source, new_database() as copy:
        await a_copy_behind(source, copy)
        liar = ScriptedServer(source.database, script, "liar")
        with pytest.raises(VerificationFailed, match="liar: invalid proof") as caught:
            await sync_from([liar], source.root, copy)
        assert caught.value.reason is reason
        assert liar.connections == 1
        progress = await sync_from_liar_and_honest(liar, source, copy)
        assert_same(copy, source.database)
    assert_dropped_and_named(progress, caplog)


@pytest.mark.parametrize("name", DOUBTFUL)
async def test_the_only_peer_convicts_itself_when_it_admits_that_nothing_has_changed(
    name: str, autojump_clock: MockClock
) -> None:
    with new_source(some_pairs(500)) as source, new_database() as copy:
        await a_copy_behind(source, copy)
        root = copy.root
        liar = ScriptedServer(source.database, fake_servers.tamper_changes(DOUBTFUL[name]), "liar")
        with pytest.raises(VerificationFailed, match="liar: invalid proof") as caught:
            await sync_from([liar], source.root, copy)
        assert caught.value.peer == "liar"
        assert copy.root == root, "nothing of it was applied"


async def test_the_only_peer_that_lies_about_changes_and_about_that_too_still_gives_ranges(
    autojump_clock: MockClock,
) -> None:
    async def lie_about_all_changes(
        server: FakeServer, conversation: ClientConnection, request: Asked
    ) -> None:
        if isinstance(request, GetChanges):
            proof = ChangeProof((b"lie",), (b"lie",), b"lie", ())
            await conversation.send(Changes(request.request_id, proof.encode()))
        else:
            await conversation.send(server.honest_answer(request))

    with new_source(some_pairs(500)) as source, new_database() as copy:
        await a_copy_behind(source, copy)
        liar = ScriptedServer(source.database, lie_about_all_changes, "liar")
        progress = await sync_from([liar], source.root, copy, Limits())
        assert_same(copy, source.database)
    assert progress.keys == len(source.contents[source.root])


async def test_who_shows_that_the_content_is_right_and_then_lies_about_its_changes_is_dropped(
    autojump_clock: MockClock,
) -> None:
    with new_source(some_pairs(500)) as source, new_database() as copy:
        await a_copy_behind(source, copy)
        liars = [
            ScriptedServer(source.database, fake_servers.tamper_changes(altered_value), name)
            for name in ("one", "two", "three")
        ]
        with pytest.raises(VerificationFailed) as caught:
            await sync_from(liars, source.root, copy)
    assert {failure.peer for failure in caught.value.failures} == {"one", "two", "three"}


# Content that is not what it is held to be.


def exchange_roots(database: Database) -> None:
    """Let the stored progress say of each range that it is at the root that the others are at."""
    assert database.progress is not None
    checkpoint = decode_checkpoint(database.progress, database.scheme.max_key_bytes)
    one, other = {key_range.root for key_range in checkpoint.ranges}
    ranges = RangeMap(database.scheme.max_key_bytes)
    for key_range in checkpoint.ranges:
        ranges.set(key_range.start, key_range.end, other if key_range.root == one else one)
    database.set_progress(encode_checkpoint(checkpoint._replace(ranges=ranges)))


async def a_copy_with_untrue_progress(source: Source, copy: Database) -> None:
    await a_copy_behind(source, copy, 200)
    await sync_in_part(source.database, copy, FakeServer(source.database), 50)
    exchange_roots(copy)
    source.change(100, random.Random(2))


@pytest.mark.slow
@pytest.mark.parametrize("peers", [1, 2, 4])
async def test_no_honest_peer_is_dropped_for_content_that_is_not_at_its_root(
    peers: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with new_source(some_pairs(500)) as source, new_database() as copy:
        await a_copy_with_untrue_progress(source, copy)
        servers = [FakeServer(source.database, f"honest {number}") for number in range(peers)]
        progress = await sync_from(servers, source.root, copy)
        assert_same(copy, source.database)
    assert all(peer.state is PeerState.CONNECTED for peer in progress.peers)
    assert "dropped peer" not in caplog.text
    assert progress.keys > 0, "what was suspected came as ranges"


async def test_a_lie_about_a_short_range_gets_no_honest_peer_dropped_for_what_lies_behind_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The content is right where the liar lies, which is shown, and wrong behind that."""
    caplog.set_level(logging.WARNING)

    async def lie_about_the_first(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        if not isinstance(request, GetChanges) or request.old_root == request.new_root:
            await conversation.send(server.honest_answer(request))
            return
        short = dataclasses.replace(request, max_keys=1)
        proof = server.changes(short)
        assert proof is not None
        await conversation.send(Changes(request.request_id, altered_value(proof).encode()))

    with new_source(some_pairs(300)) as source, new_database() as copy:
        await a_copy_behind(source, copy, 100)
        first = source.roots[1]
        await sync_in_part(source.database, copy, FakeServer(source.database), 10)
        assert copy.progress is not None
        checkpoint = decode_checkpoint(copy.progress, copy.scheme.max_key_bytes)
        (done, _) = checkpoint.ranges
        assert done.end is not None
        assert done.end < b"\x80"
        # It is said that what is done reaches further than it does.
        ranges = RangeMap(copy.scheme.max_key_bytes, first)
        ranges.set(b"", b"\x90", source.root)
        copy.set_progress(encode_checkpoint(checkpoint._replace(ranges=ranges, shares=(0.5, 0.5))))
        liar = ScriptedServer(source.database, lie_about_the_first, "liar")
        honest = ScriptedServer(source.database, fake_servers.after(0.3), "honest")
        source.change(150, random.Random(3))
        assert list(source.database.differences(source.roots[-2], source.root, None, done.end))
        progress = await sync_from([liar, honest], source.root, copy, Limits(requests_per_peer=1))
        assert_same(copy, source.database)
    assert progress.peers[1].state is PeerState.CONNECTED
    assert "dropped peer honest" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("name", DOUBTFUL)
async def test_a_liar_gets_no_honest_peer_dropped_for_content_that_is_not_at_its_root(
    name: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with new_source(some_pairs(500)) as source, new_database() as copy:
        await a_copy_with_untrue_progress(source, copy)
        liar = ScriptedServer(source.database, fake_servers.tamper_changes(DOUBTFUL[name]), "liar")
        progress = await sync_from_liar_and_honest(liar, source, copy)
        assert_same(copy, source.database)
    assert progress.peers[1].state is PeerState.CONNECTED
    assert "dropped peer honest" not in caplog.text


async def test_a_peer_that_does_not_say_whether_anything_has_changed_blames_nobody(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the same roots: one sends a range, one an error, one bytes that are no proof, one nothing."""
    caplog.set_level(logging.WARNING)

    def unhelpful(help_out: Answer) -> Answer:
        async def answer(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
            if isinstance(request, GetChanges) and request.old_root == request.new_root:
                await help_out(server, conversation, request)
            else:
                await conversation.send(server.honest_answer(request))

        return answer

    async def a_range(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        await conversation.send(Range(request.request_id, server.proof(request).encode()))

    async def an_error(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        await conversation.send(Error(request.request_id, ErrorCode.HISTORY_GONE, "gone"))

    lie, lies = fake_servers.tamper_changes(altered_value), itertools.count()

    async def three_lies(server: FakeServer, conversation: ClientConnection, request: Asked) -> None:
        if next(lies) < 3:
            await lie(server, conversation, request)
        else:
            await conversation.send(server.honest_answer(request))

    scripts = [a_range, an_error, no_proof, fake_servers.never]
    with new_source(some_pairs(500)) as source, new_database() as copy:
        await a_copy_behind(source, copy)
        # It says nothing helpful either, or it would accuse itself.
        silent = unhelpful(an_error)

        async def lie_or_say_nothing(
            server: FakeServer, conversation: ClientConnection, request: Asked
        ) -> None:
            is_asked = isinstance(request, GetChanges) and request.old_root == request.new_root
            await (silent if is_asked else three_lies)(server, conversation, request)

        liar = ScriptedServer(source.database, lie_or_say_nothing, "liar")
        others = [
            ScriptedServer(source.database, unhelpful(script), f"unhelpful {number}")
            for number, script in enumerate(scripts)
        ]
        await sync_from([liar, *others], source.root, copy)
        assert_same(copy, source.database)
    assert "dropped peer" not in caplog.text


def test_content_is_at_a_root_only_if_nothing_has_to_be_changed_for_that() -> None:
    with new_source(some_pairs(50)) as source, new_database(some_pairs(50)) as copy:
        key = min(source.contents[source.root])
        source.commit({key: b"another"})
        old, new = source.roots[-2:]

        def is_at(root: bytes, proof: ChangeProof, end: bytes | None = None) -> bool:
            return has_no_changes(proof.encode(), root, None, end, copy)

        assert is_at(old, source.database.prove_changes(old, old))
        assert not is_at(new, source.database.prove_changes(new, new))
        # It can be shown how the content gets to the root, and so that it is not there.
        assert not is_at(new, source.database.prove_changes(old, new))
        assert not is_at(new, source.database.prove_changes(old, new, max_keys=1))
        assert is_at(old, source.database.prove_changes(old, old, None, key), key)
        assert not has_no_changes(b"junk", old, None, None, copy)


# Everything at once.

BAD_SCRIPTS: list[Answer] = [
    *(fake_servers.tamper_changes(tampering) for tampering in (DOUBTFUL | DOUBTFUL_BOUNDARIES).values()),
    *(script for script, _ in PLAIN.values()),
    fake_servers.never,
    fake_servers.half_a_frame,
    fake_servers.hang_up,
    fake_servers.no_pairs,
    fake_servers.after(25.0),
    fake_servers.refuse(ErrorCode.UNKNOWN_ROOT),
    fake_servers.refuse(ErrorCode.HISTORY_GONE),
    fake_servers.refuse(ErrorCode.INTERNAL),
    fake_servers.claim_and_then(1 << 21, fake_servers.never),
]


@pytest.mark.slow
@settings(max_examples=amount(40, soak=2_000))
@given(
    st.lists(st.sampled_from(BAD_SCRIPTS), max_size=4),
    st.integers(0, 4),
    st.booleans(),
    st.integers(0, 1 << 32),
)
def test_one_honest_peer_is_enough_among_any_others_to_bring_a_copy_forward(
    scripts: list[Answer], place: int, progress_is_untrue: bool, seed: int
) -> None:
    async def main() -> None:
        await (a_copy_with_untrue_progress if progress_is_untrue else a_copy_behind)(source, copy)
        bad = [ScriptedServer(source.database, script, f"bad {at}") for at, script in enumerate(scripts)]
        servers = [*bad[:place], FakeServer(source.database, "honest"), *bad[place:]]
        progress = await sync_from(servers, source.root, copy, SMALL)
        honest = next(peer for peer in progress.peers if peer.name == "honest")
        assert honest.state is PeerState.CONNECTED
        assert trio.current_time() < 600

    with new_source(some_pairs(450, seed)) as source, new_database() as copy:
        trio.run(main, clock=MockClock(autojump_threshold=0))
        assert_same(copy, source.database)
