"""The code in the documentation runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(block, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(EXAMPLE.findall(document.read_text()))
]
LINKS = [
    pytest.param(document, link, id=f"{document.name}-{link}")
    for document in DOCUMENTS
    for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text())
]

PROMISES = ROOT / "docs" / "promises.md"
# A path and a name; after the first of a row, the path may be left out.
HOLDER = re.compile(r"`((?:tests/[\w/]+\.py)?)::(test_\w+)`")


def test_the_readme_has_examples() -> None:
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_runs(block: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", block], check=True, cwd=tmp_path)


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_imports_no_name_that_its_reader_may_use_for_a_module(block: str) -> None:
    imported = re.findall(r"^(?:from|import) (\w+)", block, re.MULTILINE)
    assert not {"manager", "server", "syncproto"} & set(imported)


@pytest.mark.parametrize(("document", "link"), LINKS)
def test_a_link_leads_somewhere(document: Path, link: str) -> None:
    assert (document.parent / link).exists()


def test_what_holds_a_promise_is_there() -> None:
    path, missing, held = "", [], 0
    for line in PROMISES.read_text().splitlines():
        holders = HOLDER.findall(line)
        # A row of a table without any would be a promise that nothing holds.
        if line.startswith("| ") and not line.startswith("| promise "):
            assert holders, line
        for named, test in holders:
            path, held = named or path, held + 1
            if not re.search(rf"^(?:async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE):
                missing.append(f"{path}::{test}")
    assert held > 50
    assert not missing
