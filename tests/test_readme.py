"""README.md: its code runs, it is what the index notebook gives, and its pictures load nothing."""
from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Everything the README's Python blocks define, run in order."""
    space: dict[str, Any] = {"__name__": "readme"}
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", TEXT, re.S)):
        exec(compile(block, f"README block {i}", "exec"), space)
    return space


def test_quickstart_gives_the_printed_book(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    decision = names["PortfolioIntegrator"](names["PILConfig"]()).build_target_book(
        names["snapshot_at"](names["panel"], "2020-09-01", equity=5e6, positions=names["pd"].Series(dtype=float)))
    for line in str(decision.explain("S003")).splitlines():
        assert f"    {line}".rstrip() in TEXT


def test_the_daemon_on_the_page_is_the_file_that_the_tests_run() -> None:
    assert f"```python\n{(ROOT / 'examples' / 'daemon.py').read_text(encoding='utf-8').rstrip()}\n```" in TEXT


def test_readme_is_what_the_notebook_gives() -> None:
    assert tool("build_readme").main(["--check"]) == 0
    assert tool("pipeline_picture").main(["--check"]) == 0


def test_links_and_pictures_of_the_readme_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets and all("://" not in t and (ROOT / t).is_file() for t in targets)
    for name in ("ladder", "pipeline"):
        picture = (ROOT / "docs" / "img" / f"{name}.svg").read_text(encoding="utf-8")
        assert len(picture.encode()) < 150_000 and 'aria-label="' in picture
        assert not re.search(r'(?:href|src)="(?!#)|url\((?!#)|<script|@import', picture)


def test_commands_are_shown_with_what_they_printed() -> None:
    shown = dict(re.findall(r"<!-- printed by make (\w+) -->\n(.*?)<!-- end -->", TEXT, re.S))
    assert set(shown) == {"demo", "test"}  # a first capture of `make test` needs this test green, so its block may be empty
    for command, block in shown.items():
        assert not block or block.startswith(f"```text\n$ make {command}\n")
    assert "1/N-risk" in shown["demo"] and "runs/index.html" in shown["demo"]


def test_captured_output_lands_between_its_markers() -> None:
    cell = "a\n<!-- printed by make demo -->\nold\n<!-- end -->\nb\n<!-- printed by make test -->\n<!-- end -->"
    got = tool("capture_output").insert(cell, "demo", "new \\1 text")
    assert "old" not in got and "new \\1 text\n```\n<!-- end -->\nb" in got and got.endswith("make test -->\n<!-- end -->")
