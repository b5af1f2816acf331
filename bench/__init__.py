"""Benchmarks: speed as ratios taken side by side in one run, because machines are noisy.

    python -m bench.database    one process: load, reads, range proofs, a commit; beside raw LMDB
    python -m bench.commits     one process: commits into a growing store, beside raw LMDB puts
    python -m bench.history     one process: commits with and without history, old proofs, changes, views
    python -m bench.sync        two processes: a full sync beside a raw copy
    python -m bench.follow      two processes: a replica that stays current beside a full sync
    python -m bench.scale       all of these figures for stores of several sizes, and of other keys and values

Each program says in its docstring, which ``--help`` prints, what it measures and how.  Which of them measures
which promise of the README stands in ``docs/performance.md``.  All time their work with ``figures.Stopwatch``
on pairs and stores of ``data`` and ``workload``; what has a process of its own runs by way of ``processes``;
``raw`` does the same without a trie.  Nothing here is a test.
"""
