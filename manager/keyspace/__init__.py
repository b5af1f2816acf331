"""The key space as a line, and the root that each range of it is at.

``keyspace`` has the neighbours of a key, ``range_map`` the sorted map that survives a crash.
"""
