"""What stands on disk and on the wire, byte by byte: pure functions and values, without a store.

``scheme`` and ``paths`` say how keys become paths and nodes become ids; ``branch_record``, ``location`` and
``weights`` are what the store holds; ``proof`` is what travels.  Begin with ``scheme``.
"""
