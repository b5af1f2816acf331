"""A full map and a full disk: the change is refused whole, and the last committed root stays readable."""

import random
import subprocess
import sys
from pathlib import Path

import merkledb

# The kernel lets no file of this process grow above the limit, as a full disk or a quota would.
WRITER = """
import random, resource, signal, sys, merkledb
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
some = random.Random(7)
with merkledb.open(sys.argv[1]) as database:
    for number in range(100_000):
        print(number, database.root.hex(), flush=True)
        try:
            database.commit({some.randbytes(32): some.randbytes(500) for _ in range(50)})
        except merkledb.DatabaseFull as error:
            assert "make room" in str(error), error
            print("full", database.root.hex(), len(database), flush=True)
            break
"""


def content(commits: int) -> dict[bytes, bytes]:
    some = random.Random(7)
    pairs: dict[bytes, bytes] = {}
    for _ in range(commits):
        pairs |= {some.randbytes(32): some.randbytes(500) for _ in range(50)}
    return pairs


def test_a_full_disk_leaves_the_last_root_readable(tmp_path: Path) -> None:
    path = tmp_path / "store"
    command = [sys.executable, "-c", WRITER, str(path), str(3 << 20)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    commits, root = int(lines[-2].split()[0]), lines[-2].split()[1]
    assert commits > 10
    assert lines[-1] == f"full {root} {50 * commits}"
    with merkledb.open(path) as database:
        assert database.root.hex() == root
        assert dict(database.items()) == content(commits)
        database.check()
        # With room again, writing goes on.
        assert database.commit({b"after": b"all"}) != bytes.fromhex(root)
        database.check()


def test_a_full_map_leaves_the_last_root_readable(tmp_path: Path) -> None:
    with merkledb.open(tmp_path, map_bytes=1 << 20) as database:
        root, commits = database.root, 0
        while database.revision < 1000:
            root, commits = database.root, database.revision
            try:
                database.commit({bytes([number]) + commits.to_bytes(4): bytes(300) for number in range(100)})
            except merkledb.DatabaseFull as error:
                assert "larger map_bytes" in str(error)  # noqa: PT017 - which commit it is, is not known
                break
        assert 1 < commits < 1000
        assert database.root == root
        assert len(database) == 100 * commits
        database.check()
    with merkledb.open(tmp_path) as database:
        database.commit({b"more": bytes(1 << 20)})
        database.check()
