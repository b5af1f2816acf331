"""What commands print: facts for people, one JSON document for programs, notes for those who wait.

Facts and JSON go to standard output, notes to standard error.  Invariants: a command prints exactly one JSON
document with ``--json``; nothing that comes from a store, a file or a peer is printed before it is made
printable.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final

import click
from rich.filesize import decimal

from manager.peers.address import Address
from merklesync.errors import output_error_of
from merklesync.text import truncate
from server import Server

MAX_FACT_CHARACTERS: Final = 1_000


def echo(message: str | bytes, *, nl: bool = True) -> None:
    """Print to standard output what a command was asked for.

    Raises:
        BrokenPipeError: The reader has closed the pipe, which ends a command quietly.
        CommandError: It cannot be written.
    """
    try:
        click.echo(message, nl=nl)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_error_of(error) from error


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on one line."""
    echo(json.dumps(document))


def root_as_json(root: bytes | None) -> str | None:
    """Return a root as JSON documents give it: in hex, or null."""
    return None if root is None else root.hex()


def print_json_list(about: Mapping[str, Any], name: str, items: Iterable[Any]) -> None:
    """Print one JSON document that ends with a list, item by item, for a store need not fit into memory.

    Args:
        about: What else is in the document, at least one field.
        name: Of the list.
        items: What is in it.
    """
    shown = map(json.dumps, items)
    # What is wrong with a list shows where it begins, and is to be said alone then.
    first = next(shown, "")
    echo(f"{json.dumps(about)[:-1]}, {json.dumps(name)}: [{first}", nl=False)
    for item in shown:
        echo(f",\n{item}", nl=False)
    echo("]}")


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and what they are, one a line, aligned."""
    width = max(map(len, facts), default=0)
    for name, text in facts.items():
        echo(f"{name:<{width}}  {truncate(text, MAX_FACT_CHARACTERS)}")


def print_note(sentence: str) -> None:
    """Print on standard error what a person should know and what is not an error."""
    # A note that cannot be written ends nothing.
    with suppress(OSError):
        click.echo(f"Note: {truncate(sentence, MAX_FACT_CHARACTERS)}", err=True)


class NoteHandler(logging.Handler):
    """Shows what the packages below log as notes, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print_note(record.getMessage())


def format_size(size_bytes: float) -> str:
    """Return a number of bytes as people read it: "1.5 MB"."""
    return decimal(int(size_bytes))


def format_key_count(keys: int) -> str:
    """Return a number of keys as people read it: "1 key", "2,000 keys"."""
    return f"{keys:,} key{'' if keys == 1 else 's'}"


def format_seconds(seconds: float) -> str:
    """Return a duration as people read it: "0.42 s", "12 s", "3:05", "1:00:07"."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def format_server_totals(server: Server) -> str:
    """Return what a server has done, as people read it."""
    return f"{server.counters.answers:,} answers, {format_size(server.counters.bytes_sent)} sent"


def note_if_public(addresses: list[Address]) -> None:
    """Tell a person when other machines can connect to what is served at ``addresses``."""
    if not all(is_loopback(address.host) for address in addresses):
        print_note("every machine that can reach this address can read all of the store")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to an address."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
