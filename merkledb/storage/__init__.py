"""Where the bytes lie: the folder with its locks, and the LMDB environment with its tables.

Nothing here knows what a trie is.  ``store`` opens the environment, gives transactions, and translates every
error of LMDB's; ``folder`` makes and checks the folder and holds the writer's lock.  Begin with ``store``.
"""
