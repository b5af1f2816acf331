"""Whether Python finds our own packages, before anything of them is imported.

``server`` and ``manager`` are names that applications use for modules of their own.  One that Python finds
first would be imported in place of ours, and fail far from the cause; so the face looks first and names the
file.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = ("merkledb", "syncproto", "server", "manager")


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
