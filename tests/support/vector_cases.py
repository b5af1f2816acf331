"""Reads `tests/vectors/`: every case as typed Python values, hexadecimal digits as bytes.

It leaves the judging to the tests. The files are another project's output, unchanged; their README says how
they were made.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.oracle import PlainBranch, PlainScheme, changed, path_of

FOLDER = Path(__file__).parents[1] / "vectors"
HASHER = "sha256"


class RootCase(NamedTuple):
    name: str
    scheme: PlainScheme
    contents: dict[bytes, bytes]
    root: bytes


class BigCase(NamedTuple):
    scheme: PlainScheme
    pairs: int
    root: bytes
    root_after_deletes: bytes
    root_after_replacements: bytes


class RangeCase(NamedTuple):
    """A range proof; `nodes` are those of its start and end proof, ascending, each once and unclipped."""

    name: str
    scheme: PlainScheme
    contents: dict[bytes, bytes]
    start: bytes | None
    end: bytes | None
    max_keys: int
    root: bytes
    refusal: str | None
    pairs: dict[bytes, bytes]
    nodes: tuple[PlainBranch, ...]

    @property
    def proven_end(self) -> bytes | None:
        """Where the pairs end: in that format at the last key carried, or with none at the requested end."""
        return max(self.pairs) if self.pairs else self.end


class ChangeCase(NamedTuple):
    """A change proof; `nodes` are those of its start and end proof, ascending, each once and unclipped.

    Attributes:
        old: what the client holds, which has `old_root`.
        commits: what was committed since, in order; the last of them made `root`.
        refusal: why their prover made none of it.
        rejection: why their verifier, or what applies it, failed on this honest proof.
        next_key: where their client would go on; `None` when the range is done.
        client_root: the root of a client that applied it, where theirs lived to say so.
    """

    name: str
    scheme: PlainScheme
    old: dict[bytes, bytes]
    commits: list[dict[bytes, bytes | None]]
    old_root: bytes
    root: bytes
    start: bytes | None
    end: bytes | None
    max_keys: int
    refusal: str | None
    rejection: str | None
    changes: dict[bytes, bytes | None]
    nodes: tuple[PlainBranch, ...]
    next_key: bytes | None
    client_root: bytes | None

    @property
    def new(self) -> dict[bytes, bytes]:
        return functools.reduce(changed, self.commits, self.old)

    @property
    def proven_end(self) -> bytes | None:
        """Where the changes end: at the last key carried, or with none at the requested end."""
        return max(self.changes) if self.changes else self.end


class KeyCase(NamedTuple):
    """A proof for one key, present or absent."""

    name: str
    scheme: PlainScheme
    contents: dict[bytes, bytes]
    key: bytes
    value: bytes | None
    root: bytes
    nodes: tuple[PlainBranch, ...]


def _load(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((FOLDER / name).read_text(encoding="ascii"))["cases"]
    return cases


def _bytes_or_none(digits: str | None) -> bytes | None:
    return None if digits is None else bytes.fromhex(digits)


def _scheme(case: dict[str, Any]) -> PlainScheme:
    return PlainScheme(HASHER, case["branch_factor"])


def _pairs(rows: list[dict[str, str]] | None) -> dict[bytes, bytes]:
    return {bytes.fromhex(row["key"]): bytes.fromhex(row["value"]) for row in rows or []}


def _node(row: dict[str, Any], scheme: PlainScheme) -> PlainBranch:
    tokens = row["key_bits"] * len(path_of(b"\x00", scheme)) // 8
    children = sorted((int(token), bytes.fromhex(child_id)) for token, child_id in row["children"].items())
    path = path_of(bytes.fromhex(row["key"]), scheme)[:tokens]
    return PlainBranch(path, _bytes_or_none(row["value_or_hash"]), tuple(children))


def _nodes(rows: list[dict[str, Any]], scheme: PlainScheme) -> tuple[PlainBranch, ...]:
    return tuple(sorted({_node(row, scheme) for row in rows}, key=lambda node: node.path))


def _name(case: dict[str, Any]) -> str:
    return f"{case['name']}, branch factor {case['branch_factor']}"


def root_cases() -> list[RootCase]:
    return [
        RootCase(_name(case), _scheme(case), _pairs(case["contents"]), bytes.fromhex(case["root"]))
        for case in _load("roots.json")
    ]


def big_cases() -> list[BigCase]:
    roots = ("root", "root_after_deletes", "root_after_deletes_and_replacements")
    return [
        BigCase(_scheme(case), case["n"], *(bytes.fromhex(case[root]) for root in roots))
        for case in _load("big.json")
    ]


def big_pair(number: int, prefix: bytes = b"v") -> tuple[bytes, bytes]:
    """The pair with a number, as the file's `about` defines it; the prefix is `w` for its replacement."""
    eight_bytes = number.to_bytes(8, "big")
    return hashlib.sha256(eight_bytes).digest(), hashlib.sha256(prefix + eight_bytes).digest()


def big_changes(pairs: int) -> tuple[dict[bytes, bytes], list[bytes], dict[bytes, bytes]]:
    """What a big case does in turn: its first contents, the keys it deletes, the pairs it replaces."""
    contents = dict(big_pair(number) for number in range(pairs))
    deleted = [big_pair(number)[0] for number in range(0, pairs, 100)]
    replaced = dict(big_pair(number, b"w") for number in range(0, pairs, 7) if number % 100)
    return contents, deleted, replaced


def _range_case(case: dict[str, Any]) -> RangeCase:
    scheme = _scheme(case)
    return RangeCase(
        name=_name(case),
        scheme=scheme,
        contents=_pairs(case["contents"]),
        start=_bytes_or_none(case["start"]),
        end=_bytes_or_none(case["end"]),
        max_keys=case["max_length"],
        root=bytes.fromhex(case["root"]),
        refusal=case["generate_error"],
        pairs=_pairs(case["key_values"]),
        nodes=_nodes([*(case["start_proof"] or []), *(case["end_proof"] or [])], scheme),
    )


def range_cases() -> list[RangeCase]:
    return [_range_case(case) for case in _load("proofs.json")]


def _changes(rows: list[dict[str, Any]] | None) -> dict[bytes, bytes | None]:
    return {bytes.fromhex(row["key"]): _bytes_or_none(row["value"]) for row in rows or []}


def _change_case(case: dict[str, Any]) -> ChangeCase:
    scheme = _scheme(case)
    return ChangeCase(
        name=_name(case),
        scheme=scheme,
        old=_pairs(case["old_contents"]),
        commits=[_changes(rows) for rows in case["commits"]],
        old_root=bytes.fromhex(case["start_root"]),
        root=bytes.fromhex(case["end_root"]),
        start=_bytes_or_none(case["start"]),
        end=_bytes_or_none(case["end"]),
        max_keys=case["max_length"],
        refusal=case["generate_error"],
        rejection=case["verify_error"] or case.get("commit_panic"),
        changes=_changes(case["key_changes"]),
        nodes=_nodes([*(case["start_proof"] or []), *(case["end_proof"] or [])], scheme),
        next_key=_bytes_or_none(case["next_key"]),
        client_root=_bytes_or_none(case["client_root_after_commit"] or None),
    )


def change_cases() -> list[ChangeCase]:
    return [_change_case(case) for case in _load("change_proofs.json")]


def _key_case(number: int, case: dict[str, Any]) -> KeyCase:
    scheme = _scheme(case)
    return KeyCase(
        name=f"{number}, branch factor {case['branch_factor']}",
        scheme=scheme,
        contents=_pairs(case["contents"]),
        key=bytes.fromhex(case["key"]),
        value=_bytes_or_none(case["value"]),
        root=bytes.fromhex(case["root"]),
        nodes=_nodes(case["path"], scheme),
    )


def key_cases() -> list[KeyCase]:
    return [_key_case(number, case) for number, case in enumerate(_load("single_proofs.json"))]
