"""What hashes, folds, parses and verifies, over whole columns: pure in Python, or compiled in Rust.

``interface`` has the class ``Kernel``; ``pure_...`` and ``boundary`` have most of its methods.  These are
the specification.  ``compiled`` does the same by the package ``merklekernel``, and ``choice`` says once
which of both runs.  Begin with ``pure_fold``, the one function that everything else feeds a stream to.
"""
