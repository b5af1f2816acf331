"""The choice of the kernel: the compiled one where it is installed, else the pure one.

``MERKLESYNC_KERNEL=pure`` or ``=compiled`` in the environment forces either.  The choice is made when the
kernel is first asked for, and holds for the life of the process.
"""

import logging
import os
from functools import cache
from typing import Final

from merkledb.errors import KernelMissing
from merkledb.kernel.compiled import CompiledKernel
from merkledb.kernel.interface import Kernel

VARIABLE: Final = "MERKLESYNC_KERNEL"
# What the compiled kernel must say of itself: its arguments and results are those that are used here.
_INTERFACE: Final = 3

_log = logging.getLogger(__name__)


@cache
def kernel() -> Kernel:
    """Return the kernel that runs.

    Raises:
        KernelMissing: The environment wants one that cannot be had.
    """
    return load(os.environ.get(VARIABLE, ""))


def load(wanted: str) -> Kernel:
    """Return a kernel.

    Args:
        wanted: "pure", "compiled", or nothing for the compiled one where it is there.

    Raises:
        KernelMissing: It is wanted and not there, or something else is wanted.
    """
    if wanted not in ("", "pure", "compiled"):
        raise KernelMissing(f"{VARIABLE} is {wanted!r}: set it to 'pure' or 'compiled', or unset it")
    if wanted == "pure":
        return Kernel()
    try:
        import merklekernel  # noqa: PLC0415 - may not be there.
    except ImportError as error:
        if wanted:
            raise KernelMissing(f"the compiled kernel cannot be loaded: {error}") from error
        _log.info("the compiled kernel is not installed: the pure one is used, which is slower")
        return Kernel()
    if merklekernel.INTERFACE != _INTERFACE:
        raise KernelMissing(
            f"the compiled kernel has interface {merklekernel.INTERFACE}, not {_INTERFACE}: "
            "install the one that belongs to this release, or uninstall it"
        )
    return CompiledKernel(merklekernel)


def kernel_name() -> str:
    """Return which kernel runs: "compiled" or "pure".

    Raises:
        KernelMissing: The environment wants one that cannot be had.
    """
    return kernel().name
