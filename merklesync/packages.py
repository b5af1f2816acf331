"""What comes before our packages are imported: whether Python finds them, and what Ctrl-C does meanwhile.

``server`` and ``manager`` are names that applications use for modules of their own.  One that Python finds
first would be imported in place of ours, and fail far from the cause; so the face looks first and names the
file.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, Final

PACKAGES: Final = ("merkledb", "syncproto", "server", "manager")
# As ``errors.ExitCode.INTERRUPTED``, which cannot be imported yet.
_INTERRUPTED: Final = 130
# What Python does at these where nobody has said otherwise.
_STOP_SIGNALS: Final[dict[signal.Signals, Callable[[int, FrameType | None], Any] | signal.Handlers]] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class HiddenPackage(ImportError):
    """Another module stands where Python looks for one of our packages.

    Attributes:
        name: The package that cannot be imported.
        path: The file or folder that hides it; None when there is none, and the package is missing.
    """

    def __init__(self, name: str, found: Path | None) -> None:
        if found is None:
            sentence = f"the package {name!r}, a part of merklesync, is missing: install merklesync again"
        else:
            sentence = (
                f"{found} hides the package {name!r}, a part of merklesync: rename it, "
                "or start Python so that its folder does not come first on sys.path"
            )
        super().__init__(sentence, name=name, path=None if found is None else str(found))
        self._found = found

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how the error is made again from its facts, as errors of the other packages are."""
        return type(self), (self.name, self._found), dict(self.__dict__)


def require_own_packages(folder: Path) -> None:
    """Check that each of our packages is the one in ``folder``.

    Raises:
        HiddenPackage: Python finds something else under the name of one of them, or nothing.
    """
    for name in PACKAGES:
        found = _module_path(name)
        if found is None or found.resolve() != (folder / name).resolve():
            raise HiddenPackage(name, found)


def _module_path(name: str) -> Path | None:
    """Return the folder of a package, or the file of a module, that an import of ``name`` gives."""
    module = sys.modules.get(name)
    if module is not None:
        folders, file = getattr(module, "__path__", None), getattr(module, "__file__", None)
    else:
        spec = find_spec(name)
        if spec is None:
            return None
        folders, file = spec.submodule_search_locations, spec.origin
    if folders is not None:
        return Path(next(iter(folders)))
    return Path(file or f"<{name}>")


def is_command() -> bool:
    """Return whether this process is the command line, and not a program that imports this package."""
    # A program that has Python inside it may have no arguments at all.
    is_script = [Path(name).name for name in sys.argv[:1]] == ["merklesync"]
    return is_script or sys.orig_argv[1:3] == ["-m", "merklesync"]


def leave_when_interrupted() -> None:
    """Let SIGINT and SIGTERM end the command in one line while its modules are imported, as they do later.

    That takes some tenths of a second, and nothing has begun yet that could be left half done.  In a program
    that imports this package nothing happens.  ``raise_when_interrupted`` ends it.
    """
    if is_command() and threading.current_thread() is threading.main_thread():
        for number, handler in _STOP_SIGNALS.items():
            # One that the caller has ignored stays ignored.
            if signal.getsignal(number) is handler:
                signal.signal(number, _leave)


def raise_when_interrupted() -> None:
    """Let SIGINT raise KeyboardInterrupt again, and SIGTERM do what it does in any process."""
    for number, handler in _STOP_SIGNALS.items():
        if signal.getsignal(number) is _leave:
            signal.signal(number, handler)


def _leave(_number: int, _frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"Error: interrupted\n")
    os._exit(_INTERRUPTED)
