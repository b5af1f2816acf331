"""The command ``verify``: the proof in a file is checked against a root, without a store or a network.

Root, key or range, and scheme come from the command line, never from the file: a proof that named its own
root would prove nothing.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Final

import click

from merkledb import InvalidProof, RangeProof, Reason, Scheme, VerifiedRange, verify_range
from merklesync.commands.options import (
    BRANCH_FACTORS,
    HASHERS,
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

_OTHER_ROOT: Final = (
    "; the proof was made at another root, or changed since: compare --root with the root that prove "
    "printed, or ask for another proof"
)
_OTHER_RANGE: Final = "; give the KEY, or the --start and --end, that the proof was made for"
# What to do about failures that a wrong command line causes as well.
_ADVICE: Final = {
    Reason.WRONG_ROOT: _OTHER_ROOT,
    Reason.KEY_OUTSIDE_RANGE: _OTHER_RANGE,
    Reason.STUB_INSIDE_RANGE: _OTHER_RANGE,
    Reason.DIGEST_INSIDE_RANGE: _OTHER_RANGE,
    Reason.WRONG_END: _OTHER_RANGE,
}


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
    verified = _verify(_read_proof(proof), root, claim, scheme_option)
    if as_json:
        _print_json(verified, with_pairs=values or claim.is_key)
    elif claim.is_key:
        value = verified.values[0] if verified.values else None
        found = f"there is no {claim}" if value is None else f"{claim} holds {format_bytes(value)}"
        echo(f"verified: {found}")
    else:
        _print_range(verified, with_pairs=values)


def _verify(proof: RangeProof, root: bytes, claim: ProvedRange, scheme_option: SchemeOption) -> VerifiedRange:
    """Verify a proof, and say what to do where it does not hold.

    Raises:
        CommandError: It does not hold.
    """
    try:
        return verify_range(proof, root, *claim, scheme=scheme_option.with_defaults())
    except InvalidProof as error:
        advice = _scheme_that_holds(proof, root, claim) or _ADVICE.get(error.reason, "")
        raise CommandError(f"{error}{advice}", ExitCode.NOT_VERIFIED) from error


def _scheme_that_holds(proof: RangeProof, root: bytes, claim: ProvedRange) -> str:
    """Return with which other scheme the proof holds, as advice; empty where it holds with none."""
    for hasher, branch_factor in product(HASHERS, BRANCH_FACTORS):
        try:
            verify_range(proof, root, *claim, scheme=Scheme(hasher, branch_factor))
        except InvalidProof:
            continue
        return (
            f"; it holds for {hasher} with branch factor {branch_factor}: if that is the root's scheme, "
            f"add --hasher {hasher} --branch-factor {branch_factor}"
        )
    return ""


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
    echo(f"verified: the root holds exactly {format_key_count(len(verified.keys))} from {proved}")
    if not verified.complete:
        last = verified.end or b""
        rest = format_bytes(last + bytes(1))
        print_note(
            f"the proof ends at {quote_bytes(last)}, before the range does: of what comes after it "
            f"nothing is proved; have the rest proved with prove --start {rest}"
        )
    for key, value in _pairs_of(verified) if with_pairs else ():
        echo(f"{format_bytes(key)}\t{format_bytes(value)}")
