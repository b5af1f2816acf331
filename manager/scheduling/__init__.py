"""Which range is fetched next, by whom, and at which root.

``scheduler`` keeps every key in exactly one place, and says what the writer does next; ``backlog`` has what
waits, ``assignment`` what peers were asked for and what came; ``pivot`` says which root is fetched;
``subdivide`` cuts what a proof leaves; ``stats`` counts what was done; ``checkpoint`` and ``resume`` carry it
over a crash.  Begin with ``scheduler``.
"""
