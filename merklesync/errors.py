"""How a command ends when it cannot do what it was asked: one line on standard error, and an exit code.

With ``--json`` the sentence and the code are also one JSON document on standard output.

==== ==========================================================================
code meaning
==== ==========================================================================
0    done
1    not done, for a reason that none of the others names
2    the command line is wrong; nothing was looked at
3    verification failed: a proof, a peer or a store is not what it claims to be
4    no peer could be reached
130  interrupted: Ctrl-C, or SIGTERM
==== ==========================================================================

The errors of the command line, beside those of the packages below::

    CommandError              the end of a command, with its exit code
    FileError                 pairs in a file or folder tree
    ├── InvalidLine           a line of JSON Lines or CSV is wrong
    └── TreeError             a folder tree cannot be written
        ├── InvalidNames      keys that cannot be paths, found before anything is written
        ├── TargetNotEmpty    the folder holds something
        └── WriteFailed       a file could not be written; those before it stand

Invariant: every error that input, a file, a peer or the machine can cause becomes a ``CommandError`` here.
Anything else is a defect of this program and shows its traceback.
"""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from typing import IO, Any, Final

import click

from manager import PeerUnreachable, SyncError, VerificationFailed
from merkledb import CorruptDatabase, InvalidProof, InvalidRange, MerkleDBError, PicklableError
from merklesync.text import truncate
from server import ServerError

# A sentence that names several peers or keys fits; a peer that sends a novel is cut off.
MAX_SENTENCE_CHARACTERS: Final = 2_000


class ExitCode(IntEnum):
    """How a command ended; the table of this module."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_VERIFIED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


EXIT_CODES_HELP: Final = """\b
Exit codes:
  0    done
  1    not done, for a reason that none of the others names
  2    the command line is wrong
  3    verification failed: a proof, a peer or a store is not what it claims to be
  4    no peer could be reached
  130  interrupted, with Ctrl-C or SIGTERM; run the same command again to go on

With --json, a command that fails prints {"error": ..., "exit_code": ...}."""


class FileError(PicklableError):
    """A file of pairs or a folder tree cannot be read or written; the sentence says why and what to do."""


class CommandError(PicklableError, click.ClickException):
    """The end of a command that could not be done.

    Args:
        sentence: What went wrong and what to do next; shown as one line.
        exit_code: What the process ends with.
        document: What else belongs into the JSON document: what was done nevertheless.

    Attributes:
        as_json: Whether it is printed as a JSON document too.
    """

    def __init__(
        self,
        sentence: str,
        exit_code: ExitCode = ExitCode.FAILED,
        document: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(truncate(sentence, MAX_SENTENCE_CHARACTERS))
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class; each of ours has its own
        self.document = dict(document or {})
        self.as_json = False

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the one line, and the document where that is wanted."""
        document = {**self.document, "error": self.message, "exit_code": self.exit_code}
        _print_or_give_up(json.dumps(document) + "\n" if self.as_json else "", sys.stdout)
        _print_or_give_up(f"Error: {self.message}\n", sys.stderr if file is None else file)


def _print_or_give_up(text: str, stream: IO[Any] | None) -> None:
    """Write the last that a command has to say; where that cannot be, its exit code alone says it."""
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # Python would fail again, with an exit code of its own, to write the rest when the process ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), stream.fileno())


def usage_error_of(error: click.UsageError) -> CommandError:
    """Return a wrong command line as one line; click's own takes four."""
    hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
    return CommandError(error.format_message() + hint, ExitCode.USAGE)


def command_error_of(error: Exception) -> CommandError | None:
    """Return how a command ends with ``error``, or None when it is a defect of the program."""
    match error:
        case InvalidProof() | VerificationFailed() | CorruptDatabase():
            return CommandError(str(error), ExitCode.NOT_VERIFIED)
        case PeerUnreachable():
            return CommandError(str(error), ExitCode.UNREACHABLE)
        case InvalidRange():
            return CommandError(str(error), ExitCode.USAGE)
        case MerkleDBError() | SyncError() | ServerError() | FileError():
            return CommandError(str(error))
        case OSError():
            return CommandError(describe_os_error(error))
    return None


def output_error_of(error: OSError) -> CommandError:
    """Return how a command ends that cannot print what it was asked for."""
    return CommandError(
        f"writing to standard output failed: {describe_os_error(error)}; what was done by then stands"
    )


def describe_os_error(error: OSError) -> str:
    """Return what the operating system refused, in one sentence."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
