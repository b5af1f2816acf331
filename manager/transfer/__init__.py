"""From a request to the disk: ask, verify, and write, within a budget of memory (see ``manager.memory``).

``fetcher`` asks one peer for one assignment, ``verification`` is the only way from an answer to what it
proves, ``sync_writer`` applies it.  Begin with ``fetcher``.
"""
