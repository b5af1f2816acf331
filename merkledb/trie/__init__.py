"""Going down in a trie: the one of the tables, one of the past, or one that is only proposed.

``node`` has nodes and buckets, ``trie`` the ways down and the boundary of a range, ``merge_stream`` the
stream of a commit: local content with changes merged in.  Begin with ``trie``.
"""
