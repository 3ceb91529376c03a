"""The pages that the documentation is built from; the build itself is in the slow tier."""
from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "source"
    load(ROOT / "tools" / "build_docs.py").prepare(folder)
    return folder


def test_every_numbered_notebook_is_a_page_in_one_contents(source: Path) -> None:
    contents = [x for name in ("stages", "live", "estimates", "research")
                for x in (source / f"{name}.md").read_text().splitlines()
                if x.startswith("nbs/")]
    assert sorted(contents) == sorted(f"nbs/{p.stem}" for p in (ROOT / "nbs").glob("[0-9]*.ipynb"))
    assert all((source / f"{x}.ipynb").is_file() for x in contents)


def test_pages_hide_set_up_and_flags(source: Path) -> None:
    for path in (source / "nbs").glob("*.ipynb"):
        code = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        assert code and not any(x.startswith("#|") for c in code for x in c.splitlines()), path.name


def test_every_public_module_has_a_reference_page(source: Path) -> None:
    names = {p.stem for p in (source / "api").glob("*.md")}
    assert {"types", "config", "step", "integrator", "stages.drawdown", "allocators.hrp", "research.walk_forward"} <= names
    listed = [x for x in (source / "api.md").read_text().splitlines() if x.startswith("api/")]
    assert sorted(listed) == sorted(f"api/{n}" for n in names)


def test_get_started_takes_its_sections_from_the_readme(source: Path) -> None:
    text = (source / "readme_start.md").read_text()
    assert [x for x in text.splitlines() if x.startswith("## ")] == ["## Two commands", "## Quickstart", "## In a daemon"]
    assert "<!--" not in text


def test_math_becomes_mathml_or_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    from docutils import nodes

    math = load(ROOT / "docs" / "_ext" / "mathml.py")
    good = math.markup(r"m = \begin{cases} 1 & x \le 1 \\ 0 & x > 1 \end{cases}", "block", nodes.math())
    assert good.startswith("<math") and "<mtable>" in good and "text-align:left" in good
    assert "<mtr>" in math.markup(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "block", nodes.math())
    assert math.markup(r"\begin{gathered} a & b \\ c \end{gathered}", "block", nodes.math()).startswith("<code>")


def test_pages_that_load_from_elsewhere_are_found(tmp_path: Path) -> None:
    build = load(ROOT / "tools" / "build_docs.py")
    (tmp_path / "good.html").write_text('<a href="https://x.org">x</a><code>&lt;img src="https://x.org/a.png"&gt;</code>')
    assert build.foreign(tmp_path) == []
    (tmp_path / "bad.html").write_text('<script src="https://x.org/a.js"></script>')
    assert build.foreign(tmp_path) == ["bad.html"]


@pytest.mark.slow
def test_the_site_builds_without_warnings() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "build_docs.py")], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
