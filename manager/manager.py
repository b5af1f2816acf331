"""The manager: makes one database the verified copy of a target root, from peers that nobody has to trust.

    PeerSession (one a peer)                             Writer (one)
      ledger.take -> ask -> verify -> ledger.accept  ->    collect -> database.apply -> ledger.settle
                            (in a thread)                             (in a thread)

The target comes from someone the caller trusts; everything else is checked against it.  This module ties the
parts together, decides when the sync is over, and says which typed error ends it; how work is divided stands
in ``ledger`` and ``split``, what becomes of a peer's failure in ``session``.

Invariants:

- A single task writes to the database.  What it has written is what the stored progress says, at every
  moment.
- ``run`` returns only when the local root is the target.
"""

from collections.abc import Sequence
from logging import getLogger
from random import Random
from typing import Final

import trio

from manager.errors import (
    ConnectionLost,
    InvalidProgress,
    LocalContent,
    NoPeersLeft,
    PairRefused,
    PairTooLarge,
    PeerFailure,
    PeerRefused,
    PeerUnreachable,
    ProofRejected,
    RequestTimeout,
    SyncError,
    TargetUnknown,
    VerificationFailed,
    WrongRoot,
)
from manager.fetch import Sync
from manager.ledger import Ledger
from manager.limits import Limits
from manager.peer import PeerAddress, peer_at
from manager.processor import OneThread, Processor
from manager.progress import PeerProgress, PeerState, Progress, ProgressStream
from manager.ranges import RangeMap
from manager.saved import ROOT_BYTES, Saved, decode_saved
from manager.session import PeerSession
from manager.writer import Writer
from merkledb import Database, MerkleDBError
from syncproto import MAX_CONTROL_BYTES, RANGE_OVERHEAD_BYTES, ErrorCode, Hello

USER_AGENT: Final = "merklesync"
_logger = getLogger(__name__)


class Manager:
    """Syncs one database to one target root.

    Args:
        database: Open for writing, and written by nobody else meanwhile.
        peers: Where to fetch from, at least one: ``Peer``, ``HOST:PORT``, or pairs of host and port.
        target: The root to reach, 32 bytes, from someone you trust.
        limits: What the sync may use; Limits() when not given.
        replace: Whether content that was written locally may be replaced.
        user_agent: What peers see in their logs.
        random: Where all jitter comes from.
        processor: Where blocking work runs; a thread when not given.

    Raises:
        ValueError: No peers, an address that is none, or a target that is no root.
    """

    def __init__(
        self,
        database: Database,
        peers: Sequence[PeerAddress],
        target: bytes,
        *,
        limits: Limits | None = None,
        replace: bool = False,
        user_agent: str = USER_AGENT,
        random: Random | None = None,
        processor: Processor | None = None,
    ) -> None:
        if not peers:
            raise ValueError("a sync needs at least one peer")
        if len(target) != ROOT_BYTES:
            raise ValueError(f"a root has {ROOT_BYTES} bytes, the target has {len(target)}")
        self.database = database
        self.peers = tuple(map(peer_at, peers))
        self.target = target
        self.limits = limits or Limits()
        self._replace = replace
        self._user_agent = user_agent
        self._random = random or Random()  # noqa: S311 - jitter is no secret.
        self._processor = processor or OneThread()
        self._ledger: Ledger | None = None
        self._sessions: list[PeerSession] = []
        self._failure: SyncError | MerkleDBError | None = None
        self._scope = trio.CancelScope()
        self._streams: list[ProgressStream] = []

    # Progress.

    @property
    def progress(self) -> Progress:
        """How far the sync is now."""
        peers = tuple(session.progress for session in self._sessions) or self._idle_peers()
        if self._ledger is None:
            return Progress(self.target, 0, 0, None, 0.0, None, None, 0.0, None, peers)
        ledger, now = self._ledger, trio.current_time()
        keys_per_second, bytes_per_second = ledger.rates(now)
        return Progress(
            target=self.target,
            keys=ledger.keys,
            bytes=ledger.bytes,
            expected_keys=ledger.expected_keys,
            share=ledger.share,
            keys_per_second=keys_per_second,
            bytes_per_second=bytes_per_second,
            elapsed_seconds=ledger.elapsed_seconds(now),
            seconds_left=ledger.seconds_left(now),
            peers=peers,
        )

    def _idle_peers(self) -> tuple[PeerProgress, ...]:
        return tuple(PeerProgress(peer.name, PeerState.CONNECTING, 1.0, 0, 0, "") for peer in self.peers)

    def watch(self) -> ProgressStream:
        """Return an async iterator of the progress as it changes: the newest only; it ends with the run."""
        stream = ProgressStream()
        self._streams.append(stream)
        return stream

    def _publish(self) -> None:
        if self._streams:
            progress = self.progress
            for stream in self._streams:
                stream.put(progress)

    # The sync.

    async def run(self) -> Progress:
        """Make the database the target's content, and return the final progress.

        Call it once.  It resumes what an earlier run to the same target has applied, also after a crash.
        Cancelled at any moment, it leaves a database that resumes.

        Raises:
            LocalContent: The database was written locally, and ``replace`` is False; nothing was changed.
            NoPeersLeft: No peer can help, or one of its kinds: PeerUnreachable, TargetUnknown, PairTooLarge,
                VerificationFailed.
            WrongRoot: Somebody else wrote to the database meanwhile, or the stored progress was not true;
                the next run begins anew.
            MerkleDBError: The database cannot be written.
        """
        try:
            saved = await self._processor.run(self._prepare)
            self._ledger = Ledger(saved, self.limits, trio.current_time())
            if not self._ledger.is_fetched:
                await self._fetch_all(self._ledger)
            await self._processor.run(self._conclude)
            self._publish()
            return self.progress
        finally:
            for stream in self._streams:
                stream.end()

    async def _fetch_all(self, ledger: Ledger) -> None:
        """Run the sessions and the writer until everything is on disk."""
        writer = Writer(self.database, ledger, self.limits, self._processor, self._publish)
        hello = await self._processor.run(self._hello)
        sync = Sync(self.database.scheme, hello, self.limits, ledger, writer, self._processor, self._random)
        self._sessions = [PeerSession(peer, sync, self._peer_changed) for peer in self.peers]
        with self._scope:
            async with trio.open_nursery() as nursery:
                for session in self._sessions:
                    nursery.start_soon(session.run)
                await self._write(writer)
                nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _write(self, writer: Writer) -> None:
        try:
            await writer.run()
        except MerkleDBError as error:
            self._fail(error)

    def _fail(self, failure: SyncError | MerkleDBError) -> None:
        """End the sync with an error."""
        self._failure = self._failure or failure
        self._scope.cancel()

    def _peer_changed(self) -> None:
        """Look whether anything can still be expected of any peer."""
        self._publish()
        assert self._ledger is not None
        if self._ledger.is_fetched:
            return
        failures = [
            PeerFailure(session.peer.name, session.hopeless)
            for session in self._sessions
            if session.hopeless is not None
        ]
        if len(failures) == len(self._sessions):
            self._fail(no_peers_left(tuple(failures)))

    # In threads, for they touch the database.

    def _prepare(self) -> Saved:
        """Return where the sync begins."""
        root = self.database.root
        max_key_bytes = self.database.scheme.max_key_bytes
        fresh = Saved(self.target, 0, 0, None, RangeMap(max_key_bytes, root), (0.0,))
        if root == self.target:
            if self.database.progress is not None:
                self.database.set_progress(None)
            return fresh
        if self.database.written_locally and not self._replace:
            raise LocalContent(root)
        progress = self.database.progress
        if progress is None:
            return fresh
        try:
            saved = decode_saved(progress, max_key_bytes)
        except InvalidProgress as error:
            _logger.warning("%s: %s", self.database.path, error)
            return fresh
        if saved.ranges.is_at(self.target):
            # The root above says otherwise: the content was changed, or the progress is not ours.
            _logger.warning(
                "%s: the stored progress says that all is done, and it is not", self.database.path
            )
            return fresh
        if saved.target == self.target:
            return saved
        return Saved(self.target, 0, 0, None, saved.ranges, (0.0,) * len(saved.ranges))

    def _hello(self) -> Hello:
        """Return what we say to every peer: we ask, and serve nothing."""
        scheme = self.database.scheme
        return Hello(
            hasher=scheme.hasher,
            branch_factor=scheme.branch_factor,
            root=self.database.root,
            revision=self.database.revision,
            max_frame_bytes=max(self.limits.max_proof_bytes + RANGE_OVERHEAD_BYTES, MAX_CONTROL_BYTES),
            user_agent=self._user_agent,
        )

    def _conclude(self) -> None:
        """Make sure that the local root is the target; everything that was verified says it must be.

        If it is not, the stored progress was not true of the content, and the next run must not believe it.
        """
        root = self.database.root
        if root != self.target:
            if self.database.progress is not None:
                self.database.set_progress(None)
            raise WrongRoot(self.target, root)


def no_peers_left(failures: tuple[PeerFailure, ...]) -> NoPeersLeft:
    """Return the error for a sync in which nothing is expected of any peer: the kind that says most."""
    for name, error in failures:
        if isinstance(error, ProofRejected):
            return VerificationFailed(failures, name, error.reason)
    for _, error in failures:
        if isinstance(error, PairRefused):
            return PairTooLarge(failures, error.needed_bytes, error.max_bytes)
    if any(isinstance(error, PeerRefused) and error.code is ErrorCode.UNKNOWN_ROOT for _, error in failures):
        return TargetUnknown(failures)
    if all(isinstance(error, ConnectionLost | RequestTimeout) for _, error in failures):
        return PeerUnreachable(failures)
    return NoPeersLeft(failures)
