"""Arguments and options that several commands share, each with the sentence that a wrong one gets.

What a person types is parsed here, once, into the type that the rest works with: bytes, a root, an
``Address``, a ``SchemeChoice``.  Options that belong together reach a command as one argument.
"""

import math
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, TypeAlias, TypeVar, cast

import click

from manager.peer import Address, parse_address
from merkledb import DEFAULT_HISTORY, EMPTY_ROOT, InvalidRange, Scheme
from merklesync.failures import Failure
from merklesync.keys import HEX_PREFIX, parse_bytes

LOOPBACK: Final = "127.0.0.1"
# Any free port does; a fixed one is one thing less to say on both sides.
DEFAULT_PORT: Final = 7440
Command: TypeAlias = Callable[..., Any]
Decorator: TypeAlias = Callable[[Command], Command]
Parsed = TypeVar("Parsed", bytes, float, Address)


def address_of(text: str) -> Address:
    """Return the address that ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (this machine) stands for.

    Raises:
        ValueError: It is none of these.
    """
    host, port = parse_address(text)
    return Address(host or LOOPBACK, port)


def _type(parse: Callable[[str], Parsed]) -> Callable[[str | Parsed], Parsed]:
    """Return ``parse`` as the type of an option: the sentence of its ValueError is what the user reads."""

    def convert(value: str | Parsed) -> Parsed:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return convert


def parse_root(text: str) -> bytes:
    """Return the root that 64 hex digits stand for, with or without 0x before them.

    Raises:
        ValueError: It is something else.
    """
    digits = text.removeprefix(HEX_PREFIX)
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * len(EMPTY_ROOT)}}}", digits):
        raise ValueError(f"{text!r} is not a root: a root has {2 * len(EMPTY_ROOT)} hex digits")
    return bytes.fromhex(digits)


def parse_seconds(text: str) -> float:
    """Return the number of seconds that ``text`` stands for; ``inf`` is one of them.

    Raises:
        ValueError: It is no number, or below 0.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise ValueError(f"{text!r} is no number of seconds: give 0 or more, or inf for any age")
    return seconds


class InputFile(click.File):
    """A file to read from, or - for standard input; that it cannot be opened is no wrong command line."""

    def __init__(self) -> None:
        super().__init__("rb")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> IO[bytes]:
        """Open it.

        Raises:
            Failure: It cannot be opened.
        """
        try:
            return cast("IO[bytes]", super().convert(value, param, ctx))
        except click.BadParameter as error:
            raise Failure(error.message) from error


BYTES: Final = _type(parse_bytes)
ROOT: Final = _type(parse_root)
ADDRESS: Final = _type(address_of)
PATH: Final = click.Path(path_type=Path)
FILE: Final = InputFile()

store_argument = click.argument("store", type=PATH)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
start_option = click.option("--start", type=BYTES, metavar="KEY", help="The smallest key, inclusive.")
end_option = click.option("--end", type=BYTES, metavar="KEY", help="The largest key, inclusive.")


from_option = click.option(
    "--from",
    "addresses",
    metavar="HOST:PORT",
    type=ADDRESS,
    multiple=True,
    required=True,
    help="A peer to copy from; give it several times for several peers.",
)


def require_order(start: bytes | None, end: bytes | None) -> None:
    """Refuse, as a wrong command line, a range that ends before it starts."""
    if start is not None and end is not None and start > end:
        raise click.UsageError(str(InvalidRange(start, end)), click.get_current_context())


def _packing(name: str, pack: Callable[..., Any], *options: Decorator) -> Decorator:
    """Return a decorator that adds options to a command, which gets them as one argument.

    Args:
        name: Of the command's argument.
        pack: Makes it; its parameters are named as the options are.
        options: The decorators of the options.
    """
    fields = pack.__annotations__.keys() - {"return"}

    def decorate(command: Command) -> Command:
        @wraps(command)
        def packed(*arguments: Any, **given: Any) -> Any:
            packs = {field: given.pop(field) for field in fields}
            return command(*arguments, **given, **{name: pack(**packs)})

        decorated: Command = packed
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


class KeyRange(NamedTuple):
    """What --start, --end and --prefix say; None where they were left out."""

    start: bytes | None
    end: bytes | None
    prefix: bytes | None

    def bounds(self, scheme: Scheme) -> tuple[bytes | None, bytes | None]:
        """Return the smallest and the largest key, inclusive, of a store of ``scheme``; None for no bound."""
        if self.prefix is None:
            return self.start, self.end
        return self.prefix, self.prefix.ljust(scheme.max_key_bytes, b"\xff")


def _key_range(start: bytes | None, end: bytes | None, prefix: bytes | None) -> KeyRange:
    if prefix is not None and (start is not None or end is not None):
        raise click.UsageError("give either --prefix or --start and --end", click.get_current_context())
    require_order(start, end)
    return KeyRange(start, end, prefix)


key_range_options: Final = _packing(
    "key_range",
    _key_range,
    start_option,
    end_option,
    click.option("--prefix", type=BYTES, metavar="KEY", help="Only keys that begin so."),
)


class Retention(NamedTuple):
    """What --history and --history-seconds say; None where they were left out, and the store knows."""

    history: int | None = None
    history_seconds: float | None = None


retention_options: Final = _packing(
    "retention",
    Retention,
    click.option(
        "--history",
        type=click.IntRange(min=1),
        metavar="N",
        help="How many revisions STORE retains, the newest included, from now on; "
        f"a new one {DEFAULT_HISTORY}.",
    ),
    click.option(
        "--history-seconds",
        type=_type(parse_seconds),
        metavar="N",
        help="Up to which age it retains them, the newest 8 always; inf: up to any.",
    ),
)


class SchemeChoice(NamedTuple):
    """What --hasher and --branch-factor say; None where they were left out."""

    hasher: str | None
    branch_factor: int | None

    def complete(self, default: Scheme | None = None) -> Scheme:
        """Return the scheme chosen, with what was left out taken from ``default``."""
        default = default or Scheme()
        return Scheme(
            self.hasher or default.hasher,  # type: ignore[arg-type]  # the option admits the two hashers only
            self.branch_factor or default.branch_factor,
        )


def scheme_options(which: str) -> Decorator:
    """Return a decorator that adds --hasher and --branch-factor, as the argument ``scheme``.

    Args:
        which: Whose scheme they choose, for the help: "of a new store".
    """
    hasher = click.option(
        "--hasher",
        type=click.Choice(["blake3", "sha256"]),
        help=f"The hash function {which}; default blake3.",
    )
    branch_factor = click.option(
        "--branch-factor",
        type=click.Choice(["2", "4", "16", "256"]),
        callback=lambda _context, _parameter, value: value and int(value),
        help=f"The branch factor {which}; default 16. Keys have at most 63, 126, 252 or 504 bytes.",
    )
    return _packing("scheme", SchemeChoice, hasher, branch_factor)
