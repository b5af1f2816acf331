"""The command ``verify``: the proof in a file is checked against a root, without a store or a network.

Root, key or range, and scheme come from the command line, never from the file: a proof that named its own
root would prove nothing.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from merkledb import RangeProof, VerifiedRange, verify_range
from merklesync.commands.options import (
    PATH,
    ROOT,
    SchemeOption,
    end_option,
    json_option,
    optional_key_argument,
    scheme_options,
    start_option,
    text_option,
)
from merklesync.commands.prove import MAX_PROOF_FILE_BYTES, ProvedRange
from merklesync.console.output import echo, format_key_count, print_json, print_note
from merklesync.errors import CommandError, ExitCode
from merklesync.files.paths import open_source
from merklesync.files.sorted_pairs import Pair
from merklesync.files.text_pairs import pair_to_json
from merklesync.text import format_bytes, quote_bytes


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
    scheme_option: SchemeOption,
    as_json: bool,
) -> None:
    """Verify the file PROOF (- is standard input) against --root, without a store and without a network.

    Give the KEY, or the --start and --end, and the scheme that the proof was made for: it has to prove just
    that. A range may be proved up to a key before its end; the output says so. Ends with exit code 3 when the
    proof does not hold.

    JSON: root, start, end (what is proved; null: unbounded), complete, keys; and pairs: a list of key and
    value, as get shows them, for a KEY or with --values.
    """
    claim = ProvedRange.of(key, start, end)
    verified = verify_range(_read_proof(proof), root, *claim, scheme=scheme_option.with_defaults())
    if as_json:
        _print_json(verified, with_pairs=values or claim.is_key)
    elif claim.is_key:
        value = verified.values[0] if verified.values else None
        found = f"there is no {claim}" if value is None else f"{claim} holds {format_bytes(value)}"
        echo(f"verified: {found}")
    else:
        _print_range(verified, with_pairs=values)


def _read_proof(path: Path) -> RangeProof:
    with open_source(path) as file:
        data = file.read(MAX_PROOF_FILE_BYTES + 1)
    if len(data) > MAX_PROOF_FILE_BYTES:
        sentence = f"{path} has more than {MAX_PROOF_FILE_BYTES} bytes, which no proof has"
        raise CommandError(sentence, ExitCode.NOT_VERIFIED)
    return RangeProof.decode(data)


def _pairs_of(verified: VerifiedRange) -> Iterator[Pair]:
    return zip(verified.keys, verified.values, strict=True)


def _print_json(verified: VerifiedRange, *, with_pairs: bool) -> None:
    shown = {"pairs": [pair_to_json(*pair) for pair in _pairs_of(verified)]} if with_pairs else {}
    proved = ProvedRange(verified.start, verified.end).document()
    counts = {"complete": verified.complete, "keys": len(verified.keys)}
    print_json({"root": verified.root.hex(), **proved, **counts, **shown})


def _print_range(verified: VerifiedRange, *, with_pairs: bool) -> None:
    proved = ProvedRange(verified.start, verified.end)
    echo(f"verified: {format_key_count(len(verified.keys))}, all there are from {proved}")
    if not verified.complete:
        last = quote_bytes(verified.end or b"")
        print_note(f"the proof ends before the range does: it says nothing of what is after {last}")
    for key, value in _pairs_of(verified) if with_pairs else ():
        echo(f"{format_bytes(key)}\t{format_bytes(value)}")
