"""A process that may not start a thread does all that it did before, on the thread that it has."""

import subprocess
import sys
from pathlib import Path

import pytest

# An ordinary user has to be told that there are no more threads; root never is.
BEFORE = """
import os, resource, sys, tempfile, threading, trio
import merkledb, merkledb.kernel.choice, manager, server
from manager.executor import SerialExecutor
from server import ThreadExecutor

merkledb.kernel_name()
trio.run(trio.sleep, 0)
# An encoding that is looked up for the first time is a file that the ordinary user may not be able to read.
"".encode("idna")
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    threading.Thread(target=print).start()
except RuntimeError:
    pass
else:
    sys.exit("a thread could be started")
pairs = {number.to_bytes(4): bytes(40) for number in range(20_000)}
"""
VERIFY = """
root = merkledb.root_of(pairs)
with tempfile.TemporaryDirectory() as folder, merkledb.open(folder + "/store") as database:
    assert database.commit(pairs) == root
    database.check()
    proof = database.prove_range(max_keys=20_000, max_bytes=1 << 30)
    print(len(merkledb.verify_range(proof, root)))
"""
SYNC = """
async def copy(source, replica):
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(server.serve, source, await server.open_listeners("127.0.0.1", 0))
        address = listeners[0].socket.getsockname()
        await manager.Manager(replica, [address], source.root).run()
        nursery.cancel_scope.cancel()

with tempfile.TemporaryDirectory() as folder:
    with merkledb.open(folder + "/one") as source, merkledb.open(folder + "/other") as replica:
        source.commit(pairs)
        trio.run(copy, source, replica)
        print(len(replica))
"""
RAISE = """
def work():
    raise RuntimeError("of its own")

for runner in (SerialExecutor(), ThreadExecutor(2)):
    try:
        trio.run(runner.run, work)
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["pure", "compiled"])
@pytest.mark.parametrize(
    ("work", "said"),
    [(VERIFY, "20000"), (SYNC, "20000"), (RAISE, "of its own\nof its own")],
    ids=["commit, check, prove and verify", "sync", "an error of the work itself"],
)
def test_without_threads_all_work_is_done(kernel: str, work: str, said: str) -> None:
    if kernel == "compiled":
        pytest.importorskip("merklekernel", reason="the compiled kernel is not installed")
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + work],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"MERKLESYNC_KERNEL": kernel},
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, said, "")
