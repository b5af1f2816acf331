"""What everything has that holds content: reading by key, and closing."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import NoReturn, Self, TypeVar, overload

Default = TypeVar("Default")


def require_bytes(name: str, value: object) -> None:
    """Raise TypeError unless ``value``, which ``name`` names, is bytes: not text, nor what may change."""
    if type(value) is not bytes:
        raise TypeError(f"{name} is bytes, not {type(value).__name__}: encode text, and copy what may change")


class Content(ABC):
    """A mapping of keys to values that is read by key, and a context manager that closes itself.

    It is true even when it is empty, as other open things are: ``if database`` asks whether there is one.
    What it yields in order is pairs, so it is read with ``items`` and is not iterable itself: a list of its
    keys and a dict of its pairs would both be surprised.
    """

    @abstractmethod
    def _value(self, key: bytes) -> bytes | None:
        """Return the value of ``key``; None when there is none."""

    @abstractmethod
    def close(self) -> None:
        """End the use of whatever stands behind it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is no iterable: its pairs come in order from items()")

    def __contains__(self, key: bytes) -> bool:
        require_bytes("a key", key)
        return self._value(key) is not None

    def __getitem__(self, key: bytes) -> bytes:
        require_bytes("a key", key)
        value = self._value(key)
        if value is None:
            raise KeyError(key)
        return value

    @overload
    def get(self, key: bytes) -> bytes | None: ...
    @overload
    def get(self, key: bytes, default: Default) -> bytes | Default: ...
    def get(self, key: bytes, default: Default | None = None) -> bytes | Default | None:
        """Return the value of ``key``; ``default`` when there is none."""
        require_bytes("a key", key)
        value = self._value(key)
        return default if value is None else value
