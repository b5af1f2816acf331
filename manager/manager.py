"""The manager: makes one database the verified copy of a target root, from peers that nobody has to trust.

    PeerSession (one a peer)                                  SyncWriter (one)
      scheduler.take -> ask -> verify -> scheduler.accept  ->   collect -> database.apply -> scheduler.settle
                               (in a thread)                               (in a thread)

The target comes from someone the caller trusts, and may change at any moment; everything else is checked
against it.  This module ties the parts together, decides when the sync is over, and says which typed error
ends it.  Which root it goes to stands in ``targets``, and which one it fetches on the way there in ``pivot``;
how work is divided in ``scheduler``, ``backlog`` and ``subdivide``; what becomes of a peer's failure in
``peer_session``.

Invariants:

- A single task writes to the database.  What it has written is what the stored progress says, at every
  moment.
- What the database shows is its last complete root, until another one that was a target is complete.
- ``run`` returns only when the database shows the newest target.
"""

from collections.abc import Mapping, Sequence
from logging import getLogger
from random import Random
from typing import NoReturn

import trio

from manager.errors import PeerError, PeerFailure, PeerNotReady, SyncError, no_peers_left
from manager.executor import SerialExecutor
from manager.known_peer import KnownPeer
from manager.limits import Limits
from manager.peer_session import PeerSession
from manager.peers.address import PeerAddress, peers_at
from manager.peers.health import Backoff
from manager.scheduling.backlog import Suspicion
from manager.scheduling.checkpoint import ROOT_BYTES
from manager.scheduling.pivot import Target
from manager.scheduling.resume import (
    MAX_KNOWN_REVISIONS,
    ResumePoint,
    hello_of,
    known_revisions,
    load_resume_point,
    require_replaceable,
)
from manager.scheduling.scheduler import Scheduler
from manager.status.progress import (
    PeerProgress,
    PeerState,
    Progress,
    ProgressStream,
    Reached,
    ReachedStream,
    StatusFacts,
    SyncStatus,
    status_of,
)
from manager.targets import TargetChooser
from manager.transfer.fetcher import Sync
from manager.transfer.sync_writer import NO_ROOM, SyncWriter
from merkledb import MAX_NAMED_REVISION, Database, MerkleDBError, Revision, RevisionTooHigh
from merkledb.arguments import require_bytes, require_instance, require_int

_logger = getLogger(__name__)


class Manager:
    """Syncs one database to a target root, or to one after the other.

    Args:
        database: Open for writing, and written by nobody else meanwhile.
        peers: Where to fetch from, at least one: ``Peer``, ``HOST:PORT``, or pairs of host and port.
        target: The root to reach, 32 bytes, from someone you trust; None to say it later, to go on with what
            an earlier run was on the way to, or to follow the peers.
        limits: What the sync may use; Limits() when not given.
        replace: Whether content that was written locally may be replaced.
        trust_peers: Whether the heads that peers announce are targets: the one with the highest revision, if
            that is above what the database has reached.
        random: Where all jitter comes from.
        executor: Where blocking work runs; a thread when not given.

    Raises:
        ValueError: No peers, an address that is none, or a target that is no root.
        TypeError: An argument is of another type than these.
    """

    def __init__(
        self,
        database: Database,
        peers: Sequence[PeerAddress],
        target: bytes | None = None,
        *,
        limits: Limits | None = None,
        replace: bool = False,
        trust_peers: bool = False,
        random: Random | None = None,
        executor: SerialExecutor | None = None,
    ) -> None:
        require_instance("database", database, Database)
        for name, value, kind in (
            ("limits", limits, Limits),
            ("random", random, Random),
            ("executor", executor, SerialExecutor),
        ):
            if value is not None:
                require_instance(name, value, kind)
        self.database = database
        self.peers = peers_at(peers)
        self.limits = limits or Limits()
        self._targets = TargetChooser(self.limits, trusts_heads=trust_peers, changed=self._publish)
        self._replace = replace
        self._trust_peers = trust_peers
        self._random = random or Random()  # noqa: S311 - jitter is no secret.
        self._executor = executor or SerialExecutor()
        self._scheduler: Scheduler | None = None
        self._sessions: list[PeerSession] = []
        self._peers: list[KnownPeer] = []
        # What is or was here under which number of the source, the older ones first.
        self._known: dict[int, bytes] = {}
        # Why nothing can be written; empty while it can.
        self._no_room = ""
        self._follows = False
        self._failure: SyncError | MerkleDBError | None = None
        self._scope = trio.CancelScope()
        self._progress_streams: list[ProgressStream] = []
        self._reached_streams: list[ReachedStream] = []
        self._has_ended = False
        if target is not None:
            self.update_target(target)

    # The target.

    @property
    def target(self) -> bytes | None:
        """The newest target; None while nobody has named one."""
        return None if self._targets.target is None else self._targets.target.root

    @property
    def is_at_target(self) -> bool:
        """Whether the database shows the newest target, under its number where that is known."""
        return self._scheduler is not None and self._scheduler.is_done

    def update_target(self, root: bytes, revision: int | None = None) -> None:
        """Go to another root from now on, from the event loop of the sync, at any moment.

        What was fetched is kept and brought forward by changes, what is in flight is used.  It may be called
        many times a second: the sync then reaches some of the targets, the newest in the end.

        Args:
            root: The root to reach, 32 bytes, from someone you trust.
            revision: Its number at its source, if you know it; the database takes it over, also where it
                shows the root already under a lower one.

        Raises:
            ValueError: It is no root, or the number is negative.
            TypeError: The root is not bytes, or the number not an int.
            RevisionTooHigh: No honest store has a revision of that number.
        """
        require_bytes("a target", root)
        if revision is not None:
            require_int("the number of a revision", revision, 0)
        if revision is not None and revision > MAX_NAMED_REVISION:
            raise RevisionTooHigh(revision, MAX_NAMED_REVISION)
        if len(root) != ROOT_BYTES:
            raise ValueError(f"a root has {ROOT_BYTES} bytes, the target has {len(root)}")
        self._targets.name(Target(root, revision))

    # What is to be seen.

    @property
    def progress(self) -> Progress:
        """How far the sync is now."""
        peers = tuple(peer.progress for peer in self._peers) or self._idle_peers()
        if self._scheduler is None:
            status = SyncStatus.NO_TARGET if self._targets.target is None else SyncStatus.CATCHING_UP
            if self._no_room:
                status = SyncStatus.NO_ROOM
            counts = (0, 0, 0, None, 0.0, None, None, 0.0, None)
            return Progress(status, self.target, None, 0, *counts, peers, self._no_room)
        scheduler, now = self._scheduler, trio.current_time()
        # Work at a root that no peer remembers is fetched as ranges, though it is known what is here.
        clients = [peer.client for peer in self._peers if peer.client is not None]
        forgotten = set.intersection(*(client.forgotten_roots for client in clients)) if clients else ()
        copies_in_full = scheduler.measure(forgotten)
        stats, head = scheduler.stats, scheduler.local.head
        return Progress(
            status=status_of(self._facts(scheduler, peers, copies_in_full=copies_in_full)),
            target=self.target,
            root=head.root if head is not None else None,
            revision=head.number if head is not None else 0,
            keys=stats.keys,
            changes=stats.changes,
            bytes=stats.bytes,
            expected_keys=stats.expected_keys,
            share=stats.share,
            keys_per_second=stats.keys_rate.at(now),
            bytes_per_second=stats.bytes_rate.at(now),
            elapsed_seconds=now - stats.began,
            seconds_left=stats.seconds_left(now),
            peers=peers,
            reason=self._no_room,
        )

    def _idle_peers(self) -> tuple[PeerProgress, ...]:
        return tuple(PeerProgress(peer.name, PeerState.CONNECTING, 1.0, 0, 0, "") for peer in self.peers)

    def _facts(
        self, scheduler: Scheduler, peers: Sequence[PeerProgress], *, copies_in_full: bool
    ) -> StatusFacts:
        head = scheduler.local.head
        return StatusFacts(
            head=head.root if head is not None else None,
            revision=self._targets.reached_revision,
            is_first=head is None or head.number == 0,
            has_target=self._targets.target is not None,
            is_at_target=scheduler.is_done or self._targets.is_only_tried(),
            copies_in_full=copies_in_full,
            peers=[peer.facts for peer in peers],
            follows_heads=self._trust_peers,
            known=self._known_revisions(),
            has_no_room=bool(self._no_room),
        )

    def _known_revisions(self) -> Mapping[int, bytes]:
        """Return the roots that were here by the numbers of the source; none where these are our own."""
        target = self._targets.target
        has_numbers = self._trust_peers or (target is not None and target.revision is not None)
        return self._known if has_numbers else {}

    def watch(self) -> ProgressStream:
        """Return an async iterator of the progress as it changes: the newest only; it ends with the run."""
        stream = ProgressStream()
        if self._has_ended:
            stream.end()
        else:
            self._progress_streams.append(stream)
        return stream

    def roots(self) -> ReachedStream:
        """Return an async iterator of the roots that the database shows from now on.

        The newest only, if the reader is slow; it ends with the run.
        """
        stream = ReachedStream()
        if self._has_ended:
            stream.end()
        else:
            self._reached_streams.append(stream)
        return stream

    def _know(self, revisions: Mapping[int, bytes]) -> None:
        """Note which root is here under which number."""
        self._known.update(revisions)
        while len(self._known) > MAX_KNOWN_REVISIONS:
            del self._known[next(iter(self._known))]

    def _publish(self) -> None:
        if self._progress_streams:
            progress = self.progress
            for stream in self._progress_streams:
                stream.put(progress)

    def _applied(self, head: Revision | None) -> None:
        """Tell of a transaction, and of the head if it is new."""
        if head is not None:
            assert self._scheduler is not None
            revision = self._scheduler.pivots.revision_of(head.root)
            self._targets.reached_revision = head.number if revision is None else revision
            self._know({self._targets.reached_revision: head.root})
            for peer in self._peers:
                peer.believe(head.root)
            for stream in self._reached_streams:
                stream.put(Reached(head.root, head.number, head.keys))
        self._publish()

    # The sync.

    async def run(self) -> Progress:
        """Make the database the newest target's content, and return the final progress.

        Call it once, or ``follow``.  It resumes what an earlier run has applied, to whatever target, also
        after a crash.  Cancelled at any moment, it leaves a database that resumes.

        Raises:
            LocalContent: The database was written locally, and ``replace`` is False; nothing was changed.
            NoPeersLeft: No peer can help, or one of its kinds: PeerUnreachable, TargetGone, PairTooLarge,
                VerificationFailed.
            WrongRoot: Somebody else wrote to the database meanwhile; the next run begins anew.
            MerkleDBError: The database cannot be written.
            MachineExhausted: The machine has no memory left.
        """
        try:
            scheduler = await self._begin()
            while not scheduler.is_done:
                await self._work(scheduler)
            self._publish()
            return self.progress
        finally:
            self._end_streams()

    async def follow(self) -> NoReturn:
        """Bring the database to each new target, for ever.

        With ``trust_peers``, what the peers announce becomes the target; else ``update_target`` names it.
        That no peer can be reached, or has the target, ends nothing: they are tried again, and ``progress``
        says so.  A peer that was dropped is tried again too, after a long time, as long as another is left.
        A disk that is full, and whatever else the machine lacks for a while, ends nothing either: what is
        here stays as it is and can be served, ``progress`` says what is wrong, and writing is tried again.

        Raises:
            LocalContent, WrongRoot, MerkleDBError: As ``run``, but for DatabaseFull and TooManyReaders.
            NoPeersLeft: Every peer is dropped, for it lied or cannot be talked to, before the target is here.
        """
        self._follows = True
        try:
            scheduler = await self._begin()
            await self._work(scheduler)
        finally:
            self._end_streams()
        raise AssertionError("following ends with an error only")

    def _end_streams(self) -> None:
        self._has_ended = True
        for progress_stream in self._progress_streams:
            progress_stream.end()
        for reached_stream in self._reached_streams:
            reached_stream.end()

    async def _begin(self) -> Scheduler:
        """Look at the database, and make the scheduler."""
        start, known = await self._prepare_somehow()
        self._know(known)
        self._targets.target = self._targets.target or start.target
        self._targets.reached_revision = self._revision_of(start)
        self._scheduler = scheduler = Scheduler(start, self._targets.target, self.limits, trio.current_time())
        self._sync = self._make_sync(scheduler)
        self._sessions = [PeerSession(peer, self._sync, self._peer_changed) for peer in self.peers]
        self._peers = [session.known for session in self._sessions]
        self._targets.begin(scheduler, self._peers)
        self._publish()
        return scheduler

    async def _prepare_somehow(self) -> tuple[ResumePoint, Mapping[int, bytes]]:
        """Look at the database; when following, as soon as the machine has room for that."""
        pauses = Backoff(self.limits.backoff_seconds, self.limits.max_backoff_seconds, self._random)
        while True:
            try:
                start = await self._executor.run(self._prepare)
            except NO_ROOM as error:
                if not self._follows:
                    raise
                self._note_room(str(error))
                await trio.sleep(pauses.failed())
            else:
                self._note_room("")
                return start

    def _note_room(self, lack: str) -> None:
        """Note why the machine has no room for what is to be written; empty when it has."""
        if lack != self._no_room:
            if lack:
                _logger.warning("nothing can be written, which is tried again until it can: %s", lack)
            self._no_room = lack
            self._publish()

    def _make_sync(self, scheduler: Scheduler) -> Sync:
        writer = SyncWriter(
            self.database,
            scheduler,
            self.limits,
            self._executor,
            replace=self._replace,
            applied=self._applied,
            no_room=self._note_room if self._follows else None,
            random=self._random,
        )
        return Sync(
            database=self.database,
            hello=hello_of(self.database.scheme, scheduler.local, self.limits),
            limits=self.limits,
            scheduler=scheduler,
            writer=writer,
            executor=self._executor,
            random=self._random,
            trusts_heads=self._trust_peers,
            subscribes=self._follows or self._trust_peers,
            unbans=self._follows,
            is_outdone=self._is_outdone,
            report_invalid_proof=self._report_invalid_proof,
            heard=self._head_heard,
            fail=self._fail,
        )

    def _revision_of(self, start: ResumePoint) -> int:
        """Return below which revision no peer is followed; a number that was given here says nothing."""
        head = start.local.head
        return 0 if head is None or start.local.is_local else head.number

    async def _work(self, scheduler: Scheduler) -> None:
        """Run the sessions and the writer until the newest target is reached; when following, for ever."""
        scheduler.is_closed = False
        self._scope = trio.CancelScope()
        with self._scope:
            async with trio.open_nursery() as nursery:
                for session in self._sessions:
                    nursery.start_soon(session.run)
                nursery.start_soon(self._write)
                if self._trust_peers:
                    nursery.start_soon(self._targets.watch_heads, self._is_fetching_large_value)
                while self._follows or not scheduler.is_done:
                    scheduler.follow_time(trio.current_time())
                    await scheduler.wait_until(scheduler.pivots.gives_way_at)
                scheduler.close()
                for session in self._sessions:
                    session.leave()
        if self._failure is not None:
            raise self._failure

    async def _write(self) -> None:
        try:
            await self._sync.writer.run()
        except (SyncError, MerkleDBError) as error:
            self._fail(error)

    def _fail(self, failure: SyncError | MerkleDBError) -> None:
        """End the sync with an error."""
        self._failure = self._failure or failure
        self._scope.cancel()

    # Peers.

    def _is_fetching_large_value(self) -> bool:
        return self._sync.writer.large_values.is_at_work

    def _is_outdone(self, peer: KnownPeer) -> bool:
        """Whether another peer can be asked now that gives much more."""
        assert self._scheduler is not None
        silent = self._scheduler.work.silent
        others = [other for other in self._peers if other is not peer and other not in silent]
        return any(other.outdoes(peer) for other in others)

    def _report_invalid_proof(self, suspicion: Suspicion) -> None:
        """Drop the peer whose suspected proof was a lie."""
        for session in self._sessions:
            if session.known is suspicion.peer:
                session.ban(suspicion.failure)

    def _head_heard(self) -> None:
        """Look whether what peers announce is a new target."""
        self._targets.consider_heads()
        self._peer_changed()

    def _peer_changed(self) -> None:
        """Look whether anything can still be expected of any peer, on the way to the pivot."""
        assert self._scheduler is not None
        scheduler = self._scheduler
        if not scheduler.is_done and all(map(self._unusable, self._peers)):
            self._give_up(scheduler)
        self._publish()

    def _unusable(self, peer: KnownPeer) -> PeerError | None:
        """Return why nothing is expected of a peer; None while something is."""
        if self._targets.target is None and peer.head is not None and peer.head.root is None:
            return PeerNotReady()
        return peer.why_no_help

    def _give_up(self, scheduler: Scheduler) -> None:
        """Go on to another target, or wait for better times, or end the sync, whatever is possible."""
        if not scheduler.pivots.is_newest:
            scheduler.advance(trio.current_time())
            # Where nobody is left to ask, nobody will call this again.
            self._peer_changed()
            return
        if self._targets.go_elsewhere(may_wait=self._follows):
            return
        if self._follows and not all(peer.is_banned for peer in self._peers):
            return
        failures = [(peer, self._unusable(peer)) for peer in self._peers]
        self._fail(
            no_peers_left(
                tuple(PeerFailure(peer.name, error, peer.has_answered) for peer, error in failures if error)
            )
        )

    # In threads, for they touch the database.

    def _prepare(self) -> tuple[ResumePoint, Mapping[int, bytes]]:
        """Return where the sync begins, and which roots are known by their numbers."""
        start = load_resume_point(self.database)
        if self._targets.target is not None:
            require_replaceable(self.database, self._targets.target, replace=self._replace)
            if start.local.is_at_rest and self.database.progress is not None:
                self.database.set_progress(None)
        return start, {} if start.local.is_local else known_revisions(self.database)
