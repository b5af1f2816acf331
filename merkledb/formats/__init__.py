"""What stands on disk and on the wire, byte by byte: pure functions and values, without a store.

``scheme`` says how keys become paths and nodes become ids; ``branch_record`` and ``branch_delta`` are what
the store holds of a branch, now and before; ``proof`` is what travels.  Begin with ``scheme``.
"""
