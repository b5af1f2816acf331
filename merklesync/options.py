"""Arguments and options that several commands share, each with the sentence that a wrong one gets.

What a person types is parsed here, once, into the type that the rest works with: bytes, a root, an
``Address``, a ``SchemeChoice``.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click

from merkledb import EMPTY_ROOT, Scheme
from merklesync.keys import HEX_PREFIX, parse_bytes

LOOPBACK: Final = "127.0.0.1"
# Any free port does; a fixed one is one thing less to say on both sides.
DEFAULT_PORT: Final = 7440
MAX_PORT: Final = 65_535


class Address(NamedTuple):
    """Where a server listens: host and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Command = TypeVar("Command", bound=Callable[..., Any])
Parsed = TypeVar("Parsed", bytes, Address)


def parse_address(text: str) -> Address:
    """Return the address that ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (this machine) stands for.

    Raises:
        ValueError: It is none of these.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not (port.isascii() and port.isdigit()) or (":" in host and not bracketed):
        raise ValueError(
            f"{text!r} is not HOST:PORT, such as example.org:{DEFAULT_PORT} or [::1]:{DEFAULT_PORT}"
        )
    if int(port) > MAX_PORT:
        raise ValueError(f"port {port} is above {MAX_PORT}")
    return Address((host[1:-1] if bracketed else host) or LOOPBACK, int(port))


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


BYTES: Final = _type(parse_bytes)
ROOT: Final = _type(parse_root)
ADDRESS: Final = _type(parse_address)
PATH: Final = click.Path(path_type=Path)

store_argument = click.argument("store", type=PATH)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
start_option = click.option("--start", type=BYTES, metavar="KEY", help="The smallest key, inclusive.")
end_option = click.option("--end", type=BYTES, metavar="KEY", help="The largest key, inclusive.")


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


def scheme_options(which: str) -> Callable[[Command], Command]:
    """Return a decorator that adds --hasher and --branch-factor, as ``hasher`` and ``branch_factor``.

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
        help=f"The branch factor {which}; default 16. Keys have at most 63, 127, 255 or 510 bytes.",
    )
    return lambda command: hasher(branch_factor(command))
