"""Benchmarks: speed as ratios taken side by side in one run, because machines are noisy.

    python -m bench.database    one process: load, reads, range proofs, a commit; beside raw LMDB
    python -m bench.history     one process: commits with and without history, old proofs, changes, views
    python -m bench.commits     one process: commits into a growing store, beside raw LMDB puts
    python -m bench.sync        two processes: a full sync beside a raw copy
    python -m bench.follow      two processes: a replica that stays current beside a full sync
    python -m bench.scale       all of these figures for stores of several sizes, and of other keys and values

Nothing here is a test.
"""
