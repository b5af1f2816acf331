"""Benchmarks: speed as ratios taken side by side in one run, because machines are noisy.

    python -m bench.database    one process: load, reads, range proofs, a commit; beside raw LMDB
    python -m bench.commits     one process: commits into a growing store, beside raw LMDB puts
    python -m bench.history     one process: commits with and without history, old proofs, changes, views
    python -m bench.sync        two processes: a full sync beside a raw copy
    python -m bench.follow      two processes: a replica that stays current beside a full sync
    python -m bench.scale       all of these figures for stores of several sizes, and of other keys and values

Each program says in its docstring, which ``--help`` prints, what it measures and how.  Which of them measures
which promise of the README stands in ``docs/performance.md``.  They share

    options                     what the command lines have in common, and what they refuse
    data, workload              pairs, changes and stores; for ``scale``, any number of pairs of several kinds
    raw                         the same pairs without a trie: LMDB alone, and a copy that verifies nothing
    steps                       what loads, gets, proofs and commits cost, in ``database`` and ``scale``
    processes, instruments      servers and clients, their memory, their event loops and their threads
    figures, results, plots     times, tables, and how figures grow

Nothing here is a test.
"""
