"""The command ``prove``: a proof of a key or a range, written to a file for ``verify`` or a program.

The file holds ``RangeProof.encode()`` and nothing else.
"""

import sys
from base64 import b64encode
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from merkledb import DEFAULT_MAX_BYTES, MAX_PROOF_KEYS, LimitTooSmall, RangeProof, Snapshot
from merklesync.commands.options import (
    PATH,
    end_option,
    json_option,
    optional_key_argument,
    require_order,
    start_option,
    store_argument,
    text_option,
)
from merklesync.commands.revision_option import RevisionOption, at_option, snapshot_at
from merklesync.commands.stores import open_for_reading, scheme_as_json
from merklesync.console.output import echo, print_facts, print_json, print_note
from merklesync.errors import CommandError
from merklesync.files.paths import new_file
from merklesync.files.text_pairs import bytes_to_json
from merklesync.text import format_bytes, quote_bytes

# The proof of a value of the largest size takes less than a third; no honest file of a proof is larger.
MAX_PROOF_FILE_BYTES: Final = 256 * 1024 * 1024


class ProvedRange(NamedTuple):
    """What a proof is about: the pairs of [start, end], both inclusive, None for no bound."""

    start: bytes | None
    end: bytes | None

    @classmethod
    def of(cls, key: bytes | None, start: bytes | None, end: bytes | None) -> "ProvedRange":
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
        return {name: _key_as_json(key) for name, key in (("start", self.start), ("end", self.end))}

    def __str__(self) -> str:
        first = "the first key" if self.start is None else quote_bytes(self.start)
        last = "the last key" if self.end is None else quote_bytes(self.end)
        return f"key {first}" if self.is_key else f"{first} to {last}"


def _key_as_json(key: bytes | None) -> str | dict[str, str] | None:
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
    at: RevisionOption | None,
    as_json: bool,
) -> None:
    """Prove what STORE holds under KEY, or that it holds nothing there; or all pairs from --start to --end.

    The proof is written as bytes, for verify or for a program. A range that does not fit into --max-keys and
    --max-bytes is proved up to the last key that does; prove the rest with --start after it.

    Ends with exit code 3, and writes nothing, when the proof does not hold, for then STORE is damaged.

    JSON: root, hasher, branch_factor, start, end (what is proved; null: unbounded), complete, keys,
    proof_bytes, and either file or proof ({"base64": ...}).
    """
    claim = ProvedRange.of(key, start, end)
    if output is None and not as_json and sys.stdout.isatty():
        raise click.UsageError("a proof is no text: add --output FILE", click.get_current_context())
    with open_for_reading(store) as database, snapshot_at(database, at) as snapshot:
        proof = snapshot.prove(key) if key is not None else _prove_range(snapshot, claim, max_keys, max_bytes)
        snapshot.check_proof(proof, claim.start, claim.end)
        about = {"root": snapshot.root.hex(), **scheme_as_json(snapshot.scheme)}
    encoded = proof.encode()
    if output is not None:
        with new_file(output) as file:
            file.write(encoded)
    proved = ProvedRange(claim.start, proof.end)
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
        rest = format_bytes((proof.end or b"") + bytes(1))
        print_note(f"the limits were reached; prove the rest with --start {rest}")


def _prove_range(snapshot: Snapshot, claim: ProvedRange, max_keys: int, max_bytes: int) -> RangeProof:
    try:
        return snapshot.prove_range(*claim, max_keys=max_keys, max_bytes=max_bytes)
    except LimitTooSmall as error:
        raise CommandError(
            f"a proof of at most {max_bytes} bytes cannot hold the next pair: "
            f"add --max-bytes {error.needed_bytes}"
        ) from error
