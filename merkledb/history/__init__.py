"""What each revision changed, as it was before, and how an old root is read through it.

``revisions`` are the states that there were, ``log`` writes and prunes what they overwrote; ``reader``,
``historical_trie`` and ``rows`` read a state of the past.  Begin with ``log``.
"""
