"""Where the bytes lie: the folder with its locks, and the LMDB environment with its tables.

Nothing here knows what a trie is.  ``store`` has the tables and gives transactions; ``environment`` opens
LMDB's, and again where it must, and ``lmdb_errors`` translates its errors; ``folder`` makes and checks the
folder and holds the writer's lock.  Begin with ``store``.
"""
