"""Every exception class of every package survives pickling, with all that it says."""

import importlib
import inspect
import pickle
import pkgutil
import typing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import pytest

import manager
import merkledb
import merklesync
import server
import syncproto
from manager import PeerFailure, ProofRejected, RequestTimeout
from merkledb import Reason, Scheme
from merklesync.errors import ExitCode
from syncproto import Error, ErrorCode

PACKAGES = (merkledb, syncproto, server, manager, merklesync)
# What stands for an argument of each type; a class that needs another type needs a row here.
SAMPLES: dict[Any, object] = {
    str: "text",
    int: 7,
    float: 1.5,
    bool: True,
    bytes: b"\1" * 32,
    object: "anything",
    Reason: Reason.WRONG_ROOT,
    ErrorCode: ErrorCode.INTERNAL,
    ExitCode: ExitCode.UNREACHABLE,
    Scheme: Scheme(),
    Path: Path("folder"),
    OSError: OSError(28, "no space"),
    ProofRejected: ProofRejected(Reason.WRONG_ROOT, "there"),
    tuple[PeerFailure, ...]: (PeerFailure("peer", RequestTimeout(3.0)),),
    Mapping[str, Any]: {"keys": 7},
    Error: Error(0, ErrorCode.OVERLOADED, "full", 500),
    list[tuple[bytes, str]]: [(b"key", "is no name")],
}


def error_classes() -> Iterator[type[Exception]]:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            found = vars(importlib.import_module(module.name)).values()
            yield from (
                each
                for each in found
                if isinstance(each, type) and issubclass(each, Exception) and each.__module__ == module.name
            )


def sample_of(annotation: Any) -> object:
    if typing.get_origin(annotation) in (UnionType, typing.Union):
        annotation = next(each for each in typing.get_args(annotation) if each is not NoneType)
    return SAMPLES[annotation]


def sample_error(kind: type[Exception]) -> Exception:
    if "__init__" not in {name for each in kind.__mro__ if each.__module__ in _OURS for name in vars(each)}:
        return kind("a sentence")
    hints = typing.get_type_hints(kind.__init__)
    given: list[object] = []
    named: dict[str, object] = {}
    for name, parameter in list(inspect.signature(kind).parameters.items()):
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = sample_of(hints[name])
        else:
            given.append(sample_of(hints[name]))
    return kind(*given, **named)


_OURS = {each.__module__ for each in error_classes()}


def facts_of(error: BaseException | None) -> object:
    """Return what an error says; errors are only equal to themselves, so their facts are compared."""
    if error is None:
        return None
    fields = {
        name: facts_of(value) if isinstance(value, BaseException) else repr(value)
        for name, value in vars(error).items()
    }
    return type(error), str(error), repr(error.args), fields


@pytest.mark.parametrize("kind", list(error_classes()), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_error_survives_pickling(kind: type[Exception]) -> None:
    error = sample_error(kind)
    error.add_note("a note")
    error.__cause__ = OSError(5, "the disk")
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        read = pickle.loads(pickle.dumps(error, protocol))
        assert facts_of(read) == facts_of(error)
        if isinstance(error, merkledb.PicklableError | syncproto.SyncProtocolError):
            assert str(read.__cause__) == "OSError: [Errno 5] the disk"
        # Once more, as an error does that goes through two processes.
        assert facts_of(pickle.loads(pickle.dumps(read, protocol))) == facts_of(error)


def test_the_classes_are_found() -> None:
    found = set(error_classes())
    assert {
        merkledb.UnknownRoot,
        syncproto.InvalidField,
        server.AddressInUse,
        manager.ProofSuspected,
    } <= found
    assert len(found) > 60


def open_nothing(path: str) -> None:
    merkledb.open(path, create=False)


@pytest.mark.slow
def test_a_pool_tells_what_went_wrong_in_its_process(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        failed = pool.submit(open_nothing, str(tmp_path / "nothing")).exception()
    assert isinstance(failed, merkledb.NotADatabase)
    assert failed.path == str(tmp_path / "nothing")
