"""Every bash and python block of README.md and docs/*.md runs, in order, in one folder per page.

Each block is its own shell or interpreter. A block is left out only behind a comment `<!-- not run: reason -->`.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(page for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")) if page.is_file())
BLOCK = re.compile(
    r"(?:^[ ]*<!--\s*not run:(?P<reason>.*?)-->\s*?\n\s*?)?"
    r"^(?P<indent>[ ]*)```(?P<language>bash|python)\b[^\n]*\n(?P<code>.*?)^[ ]*```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
LIMIT = 600


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `reason` says why it is not run, or is None."""

    language: str
    code: str
    line: int
    reason: str | None


def blocks(text: str) -> list[Block]:
    """The bash and python blocks of a page."""
    found = []
    for match in BLOCK.finditer(text):
        code = re.sub(f"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start("code"))
        found.append(Block(match["language"], code, line, match["reason"]))
    return found


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one block with the installed package's commands first on the path."""
    command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [*command, block.code],
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page: Path, tmp_path: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.reason is not None:
            assert block.reason.strip(), f"{where}: a block that is not run has to say why"
            continue
        done = run(block, tmp_path)
        assert done.returncode == 0, f"{where} left with {done.returncode}\n{block.code}\n{done.stdout}\n{done.stderr}"


def test_blocks_are_found() -> None:
    text = "a\n```bash\nls\n```\n<!-- not run: slow -->\n```python\nf()\n```\n```text\nno\n```\n"
    text += "1. x\n   ```bash\n   pwd\n   ```\n"
    found = [(block.language, block.code, block.line, block.reason) for block in blocks(text)]
    assert found == [("bash", "ls\n", 2, None), ("python", "f()\n", 6, " slow "), ("bash", "pwd\n", 13, None)]
