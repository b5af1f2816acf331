"""A process of a benchmark, as its parent sees it: what it prints, and how much memory it takes."""

import json
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

_SAMPLE_SECONDS: Final = 0.01


class WatchedProcess:
    """A process that does one thing, with a thread that watches its memory.

    Args:
        role: What it does.
        arguments: What that takes.
        module: Where its role is defined.

    Attributes:
        peak_bytes: The peak of its anonymous memory; mapped pages of a store do not count.
    """

    def __init__(self, role: str, *arguments: str, module: str = "bench.processes") -> None:
        command = [sys.executable, "-m", module, role, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.peak_bytes = 0
        self._ended = Event()
        Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        while not self._ended.wait(_SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, anonymous_bytes(status))

    def line(self) -> str:
        """Return the next line that the process prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a process of the benchmark failed: {self._process.args!r}")
        return line.strip()

    def tell(self, line: str) -> None:
        """Write a line to the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """Let the process end; return what it measured."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        result: dict[str, Any] = json.loads(self.line())
        self._ended.set()
        self._process.wait()
        return result


def anonymous_bytes(status: Path) -> int:
    """Return the anonymous memory that a /proc status file tells of; 0 when the process is gone."""
    try:
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
