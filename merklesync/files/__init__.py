"""Pairs outside a store: folder trees, JSON Lines, CSV; read, sorted, loaded, and written.

Begin with ``bulk_load``, which puts sorted pairs into a store.  They come from ``tree_reader``, or from
``text_pairs`` by way of ``sorted_pairs``; ``tree_writer`` and ``text_pairs`` write them.  ``format`` decides
which of these a path means, and ``paths`` opens it.  Nothing here knows the options of a command, or prints.
"""
