"""What hashes and folds, over whole columns: pure in Python, or compiled in Rust.

``pure_fold``, ``pure_walk``, ``pure_columns`` and ``boundary`` are the specification; the package
``merklekernel`` does the same, compiled; ``interface`` chooses once which of both runs.  Begin with
``pure_fold``, the one function that everything else feeds a stream to.
"""
