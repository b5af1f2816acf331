"""One write transaction: what a commit or an application puts into the tables.

``transaction`` decides what becomes of tip and head, ``applier`` writes values, branches and history.
Begin with ``transaction``.
"""
