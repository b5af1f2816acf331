"""The root of a mapping, without any store: the first row of the fold's table."""

from collections.abc import Iterable, Mapping

from merkledb.formats.scheme import Scheme
from merkledb.kernel.choice import kernel


def root_of(
    pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], scheme: Scheme | None = None
) -> bytes:
    """Return the root of the trie that holds ``pairs``.

    Args:
        pairs: A mapping, or (key, value) pairs in any order; of a key that comes twice the last value
            counts.  Keys may be longer here than a database can hold them.
        scheme: Scheme() when not given.
    """
    scheme = scheme or Scheme()
    content = dict(pairs)
    keys = sorted(content)
    values = [content[key] for key in keys]
    fold = kernel().fold(scheme)
    fold.feed(kernel().leaves(scheme, keys, values))
    return fold.finish()[0]
