"""Runs programs as an ordinary user, for tests of what does not bind root: permissions, and some limits."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# The user that every system has for programs that shall own nothing.
NOBODY: Final = 65534
# Far above what a program needs: what takes longer hangs.
DEADLINE_SECONDS: Final = 60
# All imports come first, because that user may not be able to read the interpreter's folder.
_DROP: Final = f"""
import os, sys, tempfile
import manager, merkledb, merklesync.cli, server
merkledb.kernel_name()
"".encode("idna")
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""


def run_program_as_ordinary_user(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code with ``sys.argv[1:]``, after our packages were imported, as a user who is not root."""
    return subprocess.run(
        [sys.executable, "-c", _DROP + program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


@contextmanager
def folder_of_ordinary_user() -> Iterator[Path]:
    """Give a new folder that this user owns, as no other user may enter the folders that pytest makes."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, NOBODY, NOBODY)
        yield Path(name)
