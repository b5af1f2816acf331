"""What people see of a sync: a word for how it stands, numbers, and estimates.

Nothing here decides anything.  ``stats`` counts and estimates.  Begin with ``progress``.
"""
