"""From a request to the disk: ask, verify, and write, within a budget of memory.

``fetcher`` asks one peer for one assignment, ``verification`` is the only way from an answer to what it
proves, ``sync_writer`` applies it; ``memory`` bounds what is on the way.  Begin with ``fetcher``.
"""
