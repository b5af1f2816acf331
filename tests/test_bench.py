"""The benchmarks run, and report every figure; how fast they are is nobody's test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["bench.database", "bench.sync"])
def test_a_benchmark_runs(name: str) -> None:
    command = [sys.executable, "-m", name, "--keys", "40000", "--runs", "1", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    figures = json.loads(done.stdout)
    assert figures.pop("keys") == 40000
    assert figures.pop("runs") == 1
    for figure in figures.values():
        values = figure.values() if isinstance(figure, dict) else [figure]
        assert all(value > 0 for value in values)
