"""What everything has that holds content: reading by key, and closing."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self, TypeVar, overload

Default = TypeVar("Default")


class Content(ABC):
    """A mapping of keys to values that is read by key, and a context manager that closes itself."""

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

    def __contains__(self, key: bytes) -> bool:
        return self._value(key) is not None

    def __getitem__(self, key: bytes) -> bytes:
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
        value = self._value(key)
        return default if value is None else value
