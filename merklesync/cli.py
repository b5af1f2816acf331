"""The command line ``merklesync``: the group of all commands, and how each ends.

Each command is a module of ``commands`` that has its name.  Everything under them stands in ``console``,
``files`` and ``following``; the table of exit codes is in ``errors`` and in ``merklesync --help``.

Invariant: whatever a user, a file, a peer or the machine does, standard error gets one line that says
what to do, and no traceback.
"""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper
from itertools import takewhile
from typing import Any, Final

from merklesync.packages import is_command, leave_when_interrupted, raise_when_interrupted

if is_command():
    # As the face does for its own modules: these take some tenths of a second as well.
    leave_when_interrupted()

import click

from merkledb import kernel_name
from merklesync.commands.check import check
from merklesync.commands.delete import delete
from merklesync.commands.demo import demo
from merklesync.commands.diff import diff
from merklesync.commands.export import export
from merklesync.commands.follow import follow
from merklesync.commands.get import get
from merklesync.commands.list import list_pairs
from merklesync.commands.load import load
from merklesync.commands.log import log
from merklesync.commands.prove import prove
from merklesync.commands.put import put
from merklesync.commands.rollback import rollback
from merklesync.commands.root import root
from merklesync.commands.serve import serve
from merklesync.commands.status import status
from merklesync.commands.sync import sync
from merklesync.commands.verify import verify
from merklesync.console.output import NoteHandler
from merklesync.console.signals import sigterm_as_interrupt
from merklesync.errors import EXIT_CODES_HELP, CommandError, ExitCode, command_error_of, usage_error_of

raise_when_interrupted()

# Where a context keeps whether --json was given.
_WANTS_JSON_KEY: Final = "merklesync.as_json"


class CommandGroup(click.Group):
    """A group of commands that all end with one line on standard error when they fail."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse what stands before the command."""
        as_json = "--json" in takewhile(lambda argument: argument != "--", args)
        with _errors_in_one_line(as_json=as_json):
            _prepare_streams()
            context = super().make_context(info_name, args, parent, **extra)
        # Later failures need it, those in the parsing of the command's own options included.
        context.meta[_WANTS_JSON_KEY] = as_json
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        with _errors_in_one_line(as_json=ctx.meta[_WANTS_JSON_KEY]):
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order of their use, not of the alphabet."""
        return list(self.commands)


@contextmanager
def _errors_in_one_line(*, as_json: bool) -> Iterator[None]:
    """Turn each error that input, a file, a peer or the machine can cause into a ``CommandError``."""
    try:
        try:
            yield
        except KeyboardInterrupt as interrupt:
            raise CommandError("interrupted", ExitCode.INTERRUPTED) from interrupt
        except click.UsageError as error:
            raise usage_error_of(error) from error
        except Exception as error:
            # A reader that went away, as in "merklesync list STORE | head", is click's to end quietly.
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            failure = command_error_of(error)
            if failure is None:
                raise
            raise failure from error
    except CommandError as failure:
        failure.as_json = as_json
        raise


def _prepare_streams() -> None:
    """Escape characters that a stream cannot encode, and refuse to run without standard output."""
    _occupy_closed_descriptors()
    if sys.stdout is None:
        raise CommandError("standard output is closed: open it, or send it to a file or to /dev/null")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _occupy_closed_descriptors() -> None:
    """Let no file that is opened later become a standard stream, to which others then write or read.

    The data file of a store with the number of standard error would take what a library or the command of
    ``--on-root`` writes there.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The system gives the lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)


def _program_version() -> str:
    try:
        return version("merklesync")
    except PackageNotFoundError:
        return "unknown: it is not installed"


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001
    del parameter
    if wanted and not context.resilient_parsing:
        click.echo(f"merklesync, version {_program_version()}, {kernel_name()} kernel")
        context.exit()


@click.group(
    cls=CommandGroup,
    epilog=EXIT_CODES_HELP,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version, and which kernel runs, and exit.",
)
@click.pass_context
def main(context: click.Context) -> None:
    """Keep key-value stores that prove what they hold, and copy them from machines that nobody has to trust.

    A store is a folder. Keys and values are text, or 0x and hex digits; with --text they are text.
    """
    context.with_resource(sigterm_as_interrupt())
    logging.basicConfig(handlers=[NoteHandler(logging.WARNING)])
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    load,
    put,
    get,
    delete,
    list_pairs,
    root,
    log,
    diff,
    prove,
    verify,
    serve,
    sync,
    follow,
    status,
    rollback,
    check,
    export,
    demo,
):
    main.add_command(command)
