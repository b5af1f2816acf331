"""What people see of a sync: a word for how it stands, numbers, and estimates.

Nothing here decides anything, or knows the rest of the manager.  ``estimate`` has rates, and how long
something takes.  Begin with ``progress``.
"""
