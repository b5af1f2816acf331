"""Folder trees in and out: what is read, what is skipped and why; nothing outside the target is touched."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merklesync.files.tree_reader import MAX_NAMES_A_REASON, SkippedFiles, SkipReason, TreeReader, Unread
from merklesync.files.tree_writer import (
    InvalidNames,
    TargetNotEmpty,
    WriteFailed,
    find_name_errors,
    name_error,
    require_names,
    write_tree,
)


def read(
    folder: Path, *, max_key_bytes: int = 255, max_value_bytes: int = 1000, excluded: tuple[Path, ...] = ()
) -> tuple[list[tuple[bytes, bytes]], SkippedFiles]:
    skipped = SkippedFiles()
    reader = TreeReader(folder, max_key_bytes, max_value_bytes, excluded)
    return list(reader.pairs(skipped)), skipped


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_files_come_in_the_order_of_their_whole_paths(tmp_path: Path) -> None:
    for name in ["a/b", "a-b", "a0", "a/b-c", "a.d/x", "z", "a/c/d"]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    pairs, skipped = read(tmp_path)
    assert pairs == sorted(pairs)
    assert dict(pairs) == {name: name for name in [b"a/b", b"a-b", b"a0", b"a/b-c", b"a.d/x", b"z", b"a/c/d"]}
    assert not skipped.counts


def test_what_is_no_plain_small_file_is_skipped_by_reason(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "plain").write_text("plain")
    (folder / "link").symlink_to("plain")
    (folder / "link to a folder").symlink_to("/")
    os.mkfifo(folder / "pipe")
    (folder / "large").write_bytes(bytes(1001))
    (folder / ("n" * 41)).write_text("")
    (folder / ("d" * 39)).mkdir()
    (folder / ("d" * 39) / "file").write_text("")
    (folder / "store").mkdir()
    (folder / "store" / "data").write_text("")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        pairs, skipped = read(folder, max_key_bytes=40, excluded=(folder / "store", folder / "missing"))
    assert pairs == [(b"plain", b"plain")]
    assert skipped.counts == {
        SkipReason.LINK: 2,
        SkipReason.SPECIAL: 2,
        SkipReason.TOO_LARGE: 1,
        SkipReason.KEY_TOO_LONG: 2,
        SkipReason.EXCLUDED: 1,
    }
    assert skipped.names[SkipReason.TOO_LARGE] == [b"large"]
    assert skipped.names[SkipReason.EXCLUDED] == [b"store/"]
    assert sorted(skipped.names[SkipReason.KEY_TOO_LONG]) == [b"d" * 39 + b"/", b"n" * 41]


def test_limits_are_inclusive(tmp_path: Path) -> None:
    (tmp_path / "12345").write_bytes(bytes(7))
    pairs, skipped = read(tmp_path, max_key_bytes=5, max_value_bytes=7)
    assert pairs == [(b"12345", bytes(7))]
    assert not skipped.counts


def test_a_file_that_cannot_be_opened_is_unreadable_even_for_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_text("")
    real_open = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None:
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    pairs, skipped = read(tmp_path)
    assert pairs == []
    assert skipped.names[SkipReason.UNREADABLE] == [b"folder/", b"secret"]


@pytest.mark.parametrize("change", [b"longer than before", b"other", b""])
def test_a_file_that_changes_while_it_is_read_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: bytes
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"first")
    os.utime(file, ns=(0, 0))
    real_read = os.read

    def read_and_change(descriptor: int, count: int) -> bytes:
        data = real_read(descriptor, count)
        if data == b"first":
            file.write_bytes(change)
        return data

    monkeypatch.setattr(os, "read", read_and_change)
    pairs, skipped = read(tmp_path)
    assert pairs == []
    assert skipped.names[SkipReason.CHANGED] == [b"file"]


def test_a_file_that_becomes_a_link_before_it_is_opened_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")
    skipped = SkippedFiles()
    pairs = TreeReader(folder, max_key_bytes=255, max_value_bytes=1000).pairs(skipped)
    assert next(pairs) == (b"a", b"a")
    (folder / "b").unlink()
    (folder / "b").symlink_to(tmp_path / "outside")
    assert list(pairs) == []
    assert skipped.names[SkipReason.UNREADABLE] == [b"b"]


def test_a_file_that_becomes_a_pipe_before_it_is_opened_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    skipped = SkippedFiles()
    pairs = TreeReader(tmp_path, max_key_bytes=255, max_value_bytes=1000).pairs(skipped)
    assert next(pairs) == (b"a", b"a")
    (tmp_path / "b").unlink()
    os.mkfifo(tmp_path / "b")
    assert list(pairs) == []
    assert skipped.names[SkipReason.SPECIAL] == [b"b"]


def test_a_file_that_comes_in_small_pieces_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"contents")
    real_read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, count: real_read(descriptor, min(count, 3)))
    assert read(tmp_path)[0] == [(b"file", b"contents")]


def test_a_disk_that_fails_below_the_folder_makes_names_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    real_scandir = os.scandir
    folders: list[int] = []

    def scan_the_first(descriptor: int) -> object:
        folders.append(descriptor)
        return real_scandir(descriptor) if len(folders) == 1 else fail()

    monkeypatch.setattr(os, "read", fail)
    monkeypatch.setattr(os, "scandir", scan_the_first)
    pairs, skipped = read(tmp_path)
    assert pairs == []
    assert skipped.names[SkipReason.UNREADABLE] == [b"file", b"folder/"]


def test_only_the_first_names_of_a_reason_are_kept(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).symlink_to("x")
    _, skipped = read(tmp_path)
    assert skipped.counts[SkipReason.LINK] == 20
    assert len(skipped.names[SkipReason.LINK]) == MAX_NAMES_A_REASON


short_paths = st.text("a/.0", max_size=6).map(str.encode)


@given(names=st.sets(short_paths, max_size=4), forgotten=short_paths, key=short_paths)
def test_unread_names_cover_themselves_and_what_is_below_them(
    names: set[bytes], forgotten: bytes, key: bytes
) -> None:
    unread = Unread()
    for name in names:
        unread.add(name)
    is_covered = any(
        not name or key == name or key.startswith(name.removesuffix(b"/") + b"/") for name in names
    )
    assert unread.covers(key) == is_covered
    unread.forget_up_to(forgotten)
    assert unread.covers(key) == is_covered or key <= forgotten
    assert len(unread) <= len(names)


def test_a_long_walk_does_not_remember_the_names_that_it_has_passed() -> None:
    unread = Unread()
    for number in range(100):
        unread.add(b"%02d/link" % number)
        unread.forget_up_to(b"%02d/z" % number)
    assert len(unread) == 0


def test_a_walk_that_is_left_early_closes_its_folders(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*"abcdefgh")
    deep.mkdir(parents=True)
    (deep / "file").write_text("")
    before = open_descriptors()
    pairs = TreeReader(tmp_path, max_key_bytes=255, max_value_bytes=10).pairs(SkippedFiles())
    next(pairs)
    assert open_descriptors() > before
    pairs.close()
    assert open_descriptors() == before


def test_measure_counts_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(5))
    (tmp_path / "large").write_bytes(bytes(1001))
    assert TreeReader(tmp_path, max_key_bytes=255, max_value_bytes=1000).measure() == (2, 15)


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"", "is empty"),
        (b"/etc/passwd", "is absolute"),
        (b"\\\\server\\share", "is absolute"),
        (b"\\windows", "is absolute"),
        (b"C:\\windows", "begins with a drive"),
        (b"c:file", "begins with a drive"),
        (b"..", "climbs with .."),
        (b"a/../../b", "climbs with .."),
        (b"a\\..\\..\\b", "climbs with .."),
        (b"a/..", "climbs with .."),
        (b"a\0b", "holds a NUL byte"),
        (b"a//b", "has an empty name beside a slash"),
        (b"a/", "has an empty name beside a slash"),
        (b"./a", "has . as a name"),
        (b"a/.", "has . as a name"),
        (b"n" * 256, "has a name of more than 255 bytes"),
    ],
)
def test_a_key_that_is_no_path_below_the_target_is_refused_by_name(
    tmp_path: Path, key: bytes, reason: str
) -> None:
    target = tmp_path / "target"
    assert name_error(key) == reason
    with pytest.raises(InvalidNames) as caught:
        require_names(target, sorted([b"fine", key]))
    assert caught.value.names == [(key, reason)]
    assert not target.exists()
    with pytest.raises(WriteFailed):
        write_tree(target, [(key, b"")])
    assert list(tmp_path.rglob("*")) == [target]


@pytest.mark.parametrize(
    "key", [b"a", b"a/b/c", b"..a", b"a..", b"...", b"a\\x2db", b"1:2", b"dir/C:x", b"\xff", b" ", b"~"]
)
def test_a_plain_relative_path_is_fine(key: bytes) -> None:
    assert name_error(key) is None


def test_a_name_that_must_be_a_file_and_a_folder_is_refused() -> None:
    keys = [b"a", b"a-b", b"a-b/c", b"a/b", b"a/b/c", b"ab", b"b/c", b"b/d"]
    assert list(find_name_errors(keys)) == [
        (b"a-b/c", "needs a-b to be a file and a folder"),
        (b"a/b", "needs a to be a file and a folder"),
        (b"a/b/c", "needs a to be a file and a folder"),
    ]


def test_many_faults_are_counted_and_the_first_named(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidNames, match=r"/0 is absolute, /1 is absolute, /2 is absolute and 5 more"
    ) as caught:
        require_names(tmp_path, [b"/%d" % number for number in range(8)])
    assert caught.value.count == 8


names = st.binary(min_size=1, max_size=6).filter(lambda name: not {0, 47} & set(name))


@given(st.sets(st.lists(names, min_size=1, max_size=4).map(b"/".join), max_size=10))
def test_keys_without_fault_are_written_and_read_back(
    tmp_path_factory: pytest.TempPathFactory, keys: set[bytes]
) -> None:
    faults = {key for key, _ in find_name_errors(sorted(keys))}
    pairs = [(key, key[::-1]) for key in sorted(keys - faults)]
    target = tmp_path_factory.mktemp("tree") / "target"
    before = open_descriptors()
    require_names(target, [key for key, _ in pairs])
    write_tree(target, pairs)
    assert read(target)[0] == pairs
    assert open_descriptors() == before


def test_a_target_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").symlink_to("/nowhere")
    with pytest.raises(TargetNotEmpty):
        require_names(tmp_path, [b"a"])
    with pytest.raises(TargetNotEmpty):
        write_tree(tmp_path, [(b"a", b"")])
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]


def test_a_link_that_appears_in_the_target_meanwhile_is_not_followed(tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b"1"
        (target / "b").symlink_to(outside)
        yield b"b/file", b"2"

    with pytest.raises(WriteFailed, match="writing b/file failed: File exists"):
        write_tree(target, pairs())
    assert list(outside.iterdir()) == []


def test_a_file_that_appears_in_the_target_meanwhile_is_not_written_to(tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.write_text("kept")

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b"1"
        (target / "b").symlink_to(outside)
        yield b"b", b"2"

    with pytest.raises(WriteFailed, match="File exists"):
        write_tree(target, pairs())
    assert outside.read_text() == "kept"
