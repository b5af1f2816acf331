"""The commands ``prove`` and ``verify``: a proof as a file, from a store, checked against a root offline.

The file holds ``RangeProof.encode()`` and nothing else.  What it is supposed to prove (root, key or
range, scheme) is said by whoever verifies, never by the file.
"""

import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from merkledb import (
    DEFAULT_MAX_BYTES,
    MAX_PROOF_KEYS,
    LimitTooSmall,
    RangeProof,
    Snapshot,
    VerifiedRange,
    verify_range,
)
from merklesync.failures import ExitCode, Failure
from merklesync.files import created, opened
from merklesync.keys import name_bytes, show_bytes
from merklesync.options import (
    BYTES,
    PATH,
    ROOT,
    SchemeChoice,
    end_option,
    json_option,
    require_order,
    scheme_options,
    start_option,
    store_argument,
    text_option,
)
from merklesync.output import echo, note, print_facts, print_json, show_keys
from merklesync.records import bytes_to_json, pair_to_json
from merklesync.revisions import RevisionName, at_option, snapshot_at
from merklesync.sorting import Pair
from merklesync.stores import describe_scheme, open_for_reading

# The proof of a value of the largest size takes less than a third; no honest file of a proof is larger.
MAX_PROOF_FILE_BYTES: Final = 256 * 1024 * 1024

optional_key_argument = click.argument("key", type=BYTES, required=False)


class Claim(NamedTuple):
    """What a proof is about: the pairs of [start, end], both inclusive, None for no bound."""

    start: bytes | None
    end: bytes | None

    @classmethod
    def of(cls, key: bytes | None, start: bytes | None, end: bytes | None) -> "Claim":
        """Return the claim that the arguments KEY, --start and --end make.

        Raises:
            UsageError: A key together with a range, or a range that ends before it starts.
        """
        if key is None:
            require_order(start, end)
            return cls(start, end)
        if start is not None or end is not None:
            raise click.UsageError("give either KEY or --start and --end", click.get_current_context())
        return cls(key, key)

    @property
    def is_key(self) -> bool:
        """Whether it is about a single key."""
        return self.start is not None and self.start == self.end

    def document(self) -> dict[str, Any]:
        """Return it as fields of a JSON document."""
        return {name: _shown(key) for name, key in (("start", self.start), ("end", self.end))}

    def __str__(self) -> str:
        first = "the first key" if self.start is None else name_bytes(self.start)
        last = "the last key" if self.end is None else name_bytes(self.end)
        return f"key {first}" if self.is_key else f"{first} to {last}"


def _shown(key: bytes | None) -> str | dict[str, str] | None:
    return None if key is None else bytes_to_json(key, form="hex")


@click.command()
@store_argument
@optional_key_argument
@start_option
@end_option
@click.option(
    "--max-keys",
    type=click.IntRange(1, MAX_PROOF_KEYS),
    default=MAX_PROOF_KEYS,
    show_default=True,
    metavar="N",
    help="At most N pairs.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1, MAX_PROOF_FILE_BYTES),
    default=DEFAULT_MAX_BYTES,
    show_default=True,
    metavar="N",
    help="At most N bytes, for a range.",
)
@click.option("--output", type=PATH, metavar="FILE", help="Write the proof to FILE, a new one.")
@at_option
@text_option
@json_option
def prove(  # noqa: PLR0913 - one parameter for each argument and option
    store: Path,
    key: bytes | None,
    *,
    start: bytes | None,
    end: bytes | None,
    max_keys: int,
    max_bytes: int,
    output: Path | None,
    at: RevisionName | None,
    as_json: bool,
) -> None:
    """Prove what STORE holds under KEY, or that it holds nothing there; or all pairs from --start to --end.

    The proof is written as bytes, for verify or for a program. A range that does not fit into --max-keys and
    --max-bytes is proved up to the last key that does; prove the rest with --start behind it.

    JSON: root, hasher, branch_factor, start, end (what is proved; null: unbounded), complete, keys,
    proof_bytes, and either file or proof ({"base64": ...}).
    """
    claim = Claim.of(key, start, end)
    if output is None and not as_json and sys.stdout.isatty():
        raise click.UsageError("a proof is no text: add --output FILE", click.get_current_context())
    with open_for_reading(store) as database, snapshot_at(database, at) as snapshot:
        proof = snapshot.prove(key) if key is not None else _prove_range(snapshot, claim, max_keys, max_bytes)
        about = {"root": snapshot.root.hex(), **describe_scheme(snapshot.scheme)}
    encoded = proof.encode()
    if output is not None:
        with created(output) as file:
            file.write(encoded)
    proved = Claim(claim.start, proof.end)
    counts = {"complete": proved == claim, "keys": len(proof.keys), "proof_bytes": len(encoded)}
    document = {**about, **proved.document(), **counts}
    if as_json and output is None:
        print_json({**document, "proof": {"base64": b64encode(encoded).decode()}})
    elif as_json:
        print_json({**document, "file": str(output)})
    elif output is None:
        echo(encoded, nl=False)
    else:
        bytes_and_root = {"bytes": f"{len(encoded):,}", "root": about["root"]}
        print_facts({"proved": str(proved), "keys": f"{len(proof.keys):,}", **bytes_and_root})
    if proved != claim:
        rest = show_bytes((proof.end or b"") + bytes(1))
        note(f"the limits were reached; prove the rest with --start {rest}")


def _prove_range(snapshot: Snapshot, claim: Claim, max_keys: int, max_bytes: int) -> RangeProof:
    try:
        return snapshot.prove_range(*claim, max_keys=max_keys, max_bytes=max_bytes)
    except LimitTooSmall as error:
        raise Failure(
            f"a proof of at most {max_bytes} bytes cannot hold the next pair: "
            f"add --max-bytes {error.needed_bytes}"
        ) from error


@click.command()
@click.argument("proof", metavar="PROOF", type=PATH)
@optional_key_argument
@click.option(
    "--root",
    metavar="HEX",
    type=ROOT,
    required=True,
    help="The root to verify against, from somebody you trust.",
)
@start_option
@end_option
@click.option("--values", is_flag=True, help="Print the pairs that are proved, each value after a tab.")
@scheme_options("that the root was made with")
@text_option
@json_option
def verify(
    proof: Path,
    key: bytes | None,
    *,
    root: bytes,
    start: bytes | None,
    end: bytes | None,
    values: bool,
    scheme: SchemeChoice,
    as_json: bool,
) -> None:
    """Verify the file PROOF (- is standard input) against --root, without a store and without a network.

    Give the KEY, or the --start and --end, and the scheme that the proof was made for: it has to prove just
    that. A range may be proved up to a key before its end; the output says so. Ends with exit code 3 when the
    proof does not hold.

    JSON: root, start, end (what is proved; null: unbounded), complete, keys; and pairs: a list of key and
    value, as get shows them, for a KEY or with --values.
    """
    claim = Claim.of(key, start, end)
    verified = verify_range(_read_proof(proof), root, *claim, scheme=scheme.complete())
    if as_json:
        _print_json(verified, with_pairs=values or claim.is_key)
    elif claim.is_key:
        value = verified.values[0] if verified.values else None
        found = f"there is no {claim}" if value is None else f"{claim} holds {show_bytes(value)}"
        echo(f"verified: {found}")
    else:
        _print_range(verified, with_pairs=values)


def _read_proof(path: Path) -> RangeProof:
    with opened(path) as file:
        data = file.read(MAX_PROOF_FILE_BYTES + 1)
    if len(data) > MAX_PROOF_FILE_BYTES:
        sentence = f"{path} has more than {MAX_PROOF_FILE_BYTES} bytes, which no proof has"
        raise Failure(sentence, ExitCode.NOT_VERIFIED)
    return RangeProof.decode(data)


def _pairs_of(verified: VerifiedRange) -> Iterator[Pair]:
    return zip(verified.keys, verified.values, strict=True)


def _print_json(verified: VerifiedRange, *, with_pairs: bool) -> None:
    shown = {"pairs": [pair_to_json(*pair) for pair in _pairs_of(verified)]} if with_pairs else {}
    proved = Claim(verified.start, verified.end).document()
    counts = {"complete": verified.complete, "keys": len(verified.keys)}
    print_json({"root": verified.root.hex(), **proved, **counts, **shown})


def _print_range(verified: VerifiedRange, *, with_pairs: bool) -> None:
    proved = Claim(verified.start, verified.end)
    echo(f"verified: {show_keys(len(verified.keys))}, all there are from {proved}")
    if not verified.complete:
        last = name_bytes(verified.end or b"")
        note(f"the proof ends before the range does: it says nothing of what is behind {last}")
    for key, value in _pairs_of(verified) if with_pairs else ():
        echo(f"{show_bytes(key)}\t{show_bytes(value)}")
