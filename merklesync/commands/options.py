"""Arguments and options that several commands share, each with the error message for a wrong value.

What a person types is parsed here, once, into the type that the rest works with: bytes, a root, an
``Address``, a ``Path``.  Options that belong together reach a command as one argument, such as
``RetentionOption``.
"""

import math
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import click

from manager.peers.address import Address, parse_address
from merkledb import DEFAULT_HISTORY, MAX_HISTORY, MAX_TIME, Scheme
from merklesync.files.format import Format
from merklesync.files.text_pairs import Notation
from merklesync.text import HEX_PREFIX, parse_bytes, parse_root, parse_text, quote_bytes

LOOPBACK: Final = "127.0.0.1"
# Any free port does; a fixed one is one thing less to say on both sides.
DEFAULT_PORT: Final = 7440
HASHERS: Final[tuple[Literal["blake3", "sha256"], ...]] = ("blake3", "sha256")
BRANCH_FACTORS: Final = (2, 4, 16, 256)
# What Python counts in a sequence, and far more than a store can hold of anything.
MAX_COUNT: Final = sys.maxsize
# Where a context keeps whether --text was given.
_AS_TEXT: Final = "merklesync.as_text"
CommandFunction: TypeAlias = Callable[..., Any]
OptionDecorator: TypeAlias = Callable[[CommandFunction], CommandFunction]
Parsed = TypeVar("Parsed", bytes, float, Address)


class PathType(click.Path):
    """A path, which need not be UTF-8."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it as a ``Path``.

        Raises:
            BadParameter: No file can have it as its path; the empty one would be the present folder.
        """
        try:
            encoded = os.fsencode(value)
        except UnicodeEncodeError as error:
            raise click.BadParameter("a path holds no half of a surrogate pair: give another") from error
        if not encoded or b"\0" in encoded:
            raise click.BadParameter(
                "a path is not empty and holds no NUL byte: give another, or . for this folder"
            )
        return super().convert(value, param, ctx)


def parse_listen_address(text: str) -> Address:
    """Return the address that ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (this machine) stands for.

    Raises:
        ValueError: It has another form.
    """
    host, port = parse_address(text)
    return Address(host or LOOPBACK, port)


def parse_peer_address(text: str) -> Address:
    """Return the address of a peer, as ``parse_listen_address``.

    Raises:
        ValueError: It is not an address, or has port 0, to which no client can connect.
    """
    address = parse_listen_address(text)
    if not address.port:
        raise ValueError(f"{text!r} has port 0, at which nobody listens: give the port of the peer")
    return address


def _option_type(parse: Callable[[str], Parsed]) -> Callable[[str | Parsed], Parsed]:
    """Return ``parse`` as the type of an option: the sentence of its ValueError is what the user reads."""

    def convert(value: str | Parsed) -> Parsed:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return convert


def parse_seconds(text: str) -> float:
    """Return the number of seconds that ``text`` stands for; ``inf`` is one of them.

    Raises:
        ValueError: It is not a number, or not one that a store keeps.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (0 <= seconds <= MAX_TIME or seconds == math.inf):
        raise ValueError(f"{text!r} is not in the range of seconds: give 0 to {MAX_TIME}, or inf for any age")
    return seconds


class BytesType(click.ParamType[bytes]):
    """A key or a value: text, or 0x and hex digits; with --text, text whatever it begins with."""

    name = "bytes"

    def convert(
        self,
        value: str | bytes,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,
    ) -> bytes:
        """Return the bytes.

        Raises:
            BadParameter: It does not stand for any bytes.
        """
        if isinstance(value, bytes):
            return value
        try:
            return parse_text(value) if ctx is not None and _AS_TEXT in ctx.meta else parse_bytes(value)
        except ValueError as error:
            hint = ", or with --text" if value.startswith(HEX_PREFIX) else ""
            raise click.BadParameter(f"{error}{hint}") from error


def _take_as_text(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001
    if wanted:
        context.meta[_AS_TEXT] = True


BYTES: Final = BytesType()
ROOT: Final = _option_type(parse_root)
ADDRESS: Final = _option_type(parse_listen_address)
PEER: Final = _option_type(parse_peer_address)
PATH: Final = PathType()

store_argument = click.argument("store", type=PATH)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
# Eager, so that it is known before any key is read.
text_option = click.option(
    "--text",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_take_as_text,
    help="Take keys and values given here as text, also where they begin with 0x.",
)
key_argument = click.argument("key", type=BYTES)
optional_key_argument = click.argument("key", type=BYTES, required=False)
start_option = click.option("--start", type=BYTES, metavar="KEY", help="The smallest key, inclusive.")
end_option = click.option("--end", type=BYTES, metavar="KEY", help="The largest key, inclusive.")
format_option = click.option(
    "--format",
    "form",
    type=click.Choice([str(form) for form in Format]),
    callback=lambda _context, _parameter, value: value and Format(value),
    help="Where the name does not tell: folder, jsonl or csv.",
)
peers_option = click.option(
    "--from",
    "addresses",
    metavar="HOST:PORT",
    type=PEER,
    multiple=True,
    required=True,
    help="A peer to copy from; give it several times for several peers.",
)


def require_order(start: bytes | None, end: bytes | None) -> None:
    """Refuse, as a wrong command line, a range that ends before it starts."""
    if start is not None and end is not None and start > end:
        raise click.UsageError(
            f"the range starts at {quote_bytes(start)}, after its end {quote_bytes(end)}: swap them",
            click.get_current_context(),
        )


def _add_options(command: CommandFunction, *options: OptionDecorator) -> CommandFunction:
    """Return a command with further options, which --help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


class KeyRangeOption(NamedTuple):
    """What --start, --end and --prefix say; None where they were left out."""

    start: bytes | None
    end: bytes | None
    prefix: bytes | None

    def bounds(self, scheme: Scheme) -> tuple[bytes | None, bytes | None]:
        """Return the smallest and the largest key, inclusive, of a store of ``scheme``; None for no bound."""
        if self.prefix is None:
            return self.start, self.end
        return self.prefix, self.prefix.ljust(scheme.max_key_bytes, b"\xff")


def key_range_options(command: CommandFunction) -> CommandFunction:
    """Add --start, --end and --prefix, as the argument ``key_range``."""

    @wraps(command)
    def with_key_range(*, start: bytes | None, end: bytes | None, prefix: bytes | None, **others: Any) -> Any:
        if prefix is not None and (start is not None or end is not None):
            raise click.UsageError("give either --prefix or --start and --end", click.get_current_context())
        require_order(start, end)
        return command(key_range=KeyRangeOption(start, end, prefix), **others)

    prefix_option = click.option("--prefix", type=BYTES, metavar="KEY", help="Only keys that begin so.")
    return _add_options(with_key_range, start_option, end_option, prefix_option)


class RetentionOption(NamedTuple):
    """What --history and --history-seconds say; None where they were left out, and the store knows."""

    history: int | None = None
    history_seconds: float | None = None


def retention_options(command: CommandFunction) -> CommandFunction:
    """Add --history and --history-seconds, as the argument ``retention``."""

    @wraps(command)
    def with_retention(*, history: int | None, history_seconds: float | None, **others: Any) -> Any:
        return command(retention=RetentionOption(history, history_seconds), **others)

    return _add_options(
        with_retention,
        click.option(
            "--history",
            type=click.IntRange(1, MAX_HISTORY),
            metavar="N",
            help="How many revisions STORE retains, the newest included, from now on; "
            f"a new one {DEFAULT_HISTORY}.",
        ),
        click.option(
            "--history-seconds",
            type=_option_type(parse_seconds),
            metavar="N",
            help="Up to which age it retains them, the newest 8 always; inf: up to any.",
        ),
    )


class SchemeOption(NamedTuple):
    """What --hasher and --branch-factor say; None where they were left out."""

    hasher: str | None
    branch_factor: int | None

    def with_defaults(self, default: Scheme | None = None) -> Scheme:
        """Return the scheme chosen, with what was left out taken from ``default``."""
        default = default or Scheme()
        return Scheme(
            self.hasher or default.hasher,  # type: ignore[arg-type]  # the option admits the two hashers only
            self.branch_factor or default.branch_factor,
        )


def scheme_options(which: str) -> OptionDecorator:
    """Return a decorator that adds --hasher and --branch-factor, as the argument ``scheme_option``.

    Args:
        which: Whose scheme they choose, for the help: "of a new store".
    """
    hasher_option = click.option(
        "--hasher",
        type=click.Choice(HASHERS),
        help=f"The hash function {which}; default blake3.",
    )
    branch_factor_option = click.option(
        "--branch-factor",
        type=click.Choice([str(branch_factor) for branch_factor in BRANCH_FACTORS]),
        callback=lambda _context, _parameter, value: value and int(value),
        help=f"The branch factor {which}; default 16. Keys have at most 63, 126, 252 or 504 bytes.",
    )

    def decorate(command: CommandFunction) -> CommandFunction:
        @wraps(command)
        def with_scheme(*, hasher: str | None, branch_factor: int | None, **others: Any) -> Any:
            return command(scheme_option=SchemeOption(hasher, branch_factor), **others)

        return _add_options(with_scheme, hasher_option, branch_factor_option)

    return decorate


class NotationsOption(NamedTuple):
    """What --keys and --values say of the columns of a CSV file; None where they were left out."""

    keys: Notation | None
    values: Notation | None

    def require_csv(self, form: Format) -> None:
        """Refuse, as a wrong command line, to say of another format how it writes bytes."""
        if form is not Format.CSV and (self.keys or self.values):
            context = click.get_current_context()
            raise click.UsageError(f"--keys and --values are for CSV: {form} is never ambiguous", context)


def notation_options(otherwise: str) -> OptionDecorator:
    """Return a decorator that adds --keys and --values, as the argument ``notations``.

    Args:
        otherwise: What holds for a column that is not spoken of, for the help.
    """

    def option(name: str) -> OptionDecorator:
        return click.option(
            f"--{name}",
            type=click.Choice([str(notation) for notation in Notation]),
            callback=lambda _context, _parameter, value: value and Notation(value),
            help=f"How a CSV file writes {name}: text as it is, hex, or auto (text, or 0x and hex digits); "
            f"{otherwise}.",
        )

    def decorate(command: CommandFunction) -> CommandFunction:
        @wraps(command)
        def with_notations(*, keys: Notation | None, values: Notation | None, **others: Any) -> Any:
            return command(notations=NotationsOption(keys, values), **others)

        return _add_options(with_notations, option("keys"), option("values"))

    return decorate
