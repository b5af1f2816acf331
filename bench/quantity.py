"""What is measured of a store, by the name that tables and documents of results give it, with its unit."""

from enum import StrEnum


class Quantity(StrEnum):
    """A number that is measured of every store, in the order of a table."""

    KEYS = "keys"
    KEY_BYTES = "bytes of a key"
    VALUE_BYTES = "bytes of a value"
    LOAD_KEYS = "load, keys a second"
    LOAD_MEGABYTES = "load, MB a second"
    RAW_KEYS = "raw append, keys a second"
    LOAD_RATIO = "load / raw append"
    LOAD_MEMORY = "load, peak memory, MB"
    LOAD_ANONYMOUS = "load, peak anonymous memory, MB"
    STORE_BYTES = "store, bytes a key"
    STORE_VALUES = "of these, values"
    STORE_BRANCHES = "of these, branches"
    STORE_REST = "of these, all else"
    GET = "get, µs"
    PROOF_PAIRS = "range proof, pairs"
    PROVE = "range proof: prove, ms"
    ENCODE = "range proof: encode, ms"
    DECODE = "range proof: decode, ms"
    VERIFY = "range proof: verify, ms"
    APPLY = "range proof: apply durably, ms"
    PROOF_BYTES = "range proof, bytes a key"
    PROVE_ONE = "single proof: prove, µs"
    VERIFY_ONE = "single proof: verify, µs"
    BYTES_OF_ONE = "single proof, bytes"
    COMMIT_PAIRS = "commit, pairs"
    COMMIT_NEW = "commit of scattered new pairs, ms"
    COMMIT_CHANGED = "commit of scattered changed values, ms"
    SYNC_KEYS = "sync, keys a second"
    SYNC_MEGABYTES = "sync, MB a second"
    SYNC_RATIO = "sync / raw copy"
    SYNC_CLIENT_MEMORY = "sync, client's peak anonymous memory, MB"
    SYNC_SERVER_MEMORY = "sync, server's peak anonymous memory, MB"
    SYNC_WIRE = "sync, bytes on the wire a key"
    SYNC_STORE = "store after a sync, bytes a key"


Measured = dict[Quantity, float]
