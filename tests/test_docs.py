"""The pages that the documentation is built from; the build itself is in the slow tier."""
from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
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


# ---------------------------------------------------------------- links, and pages that name what the code has

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def texts(source: Path) -> dict[Path, str]:
    """Every text of the site with its code blocks taken out: pages, and the Markdown of notebooks."""
    found = {}
    for path in [*source.rglob("*.md"), *source.rglob("*.ipynb")]:
        body = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = json.loads(body)["cells"]
            body = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        found[path] = re.sub(r"`[^`\n]+`|\$[^$\n]+\$", "", re.sub(r"```.*?```", "", body, flags=re.S))
    return found


def test_no_internal_link_is_broken(source: Path) -> None:
    broken = []
    for path, body in texts(source).items():
        for target in (a or b for a, b in LINK.findall(body)):
            if "://" in target or target.startswith(("#", "mailto:")):
                continue
            if not (path.parent / target.partition("#")[0]).exists():
                broken.append(f"{path.relative_to(source)}: {target}")
    assert not broken


def test_every_module_and_function_that_a_page_names_exists(source: Path) -> None:
    named = {(kind, name) for body in (p.read_text(encoding="utf-8") for p in source.glob("*.md"))
             for kind, name in re.findall(r"\{py:(mod|func|class|meth)\}`([^`]+)`", body)}
    assert named
    for kind, name in sorted(named):
        parts = name.split(".")
        at = len(parts) if kind == "mod" else -1 if kind != "meth" else -2
        found: object = importlib.import_module(".".join(parts[:at]))
        for attribute in parts[at:] if kind != "mod" else ():
            found = getattr(found, attribute)


def test_no_page_asks_for_anything_from_elsewhere(source: Path) -> None:
    build = load(ROOT / "tools" / "build_docs.py")
    loads = []
    for path, body in texts(source).items():
        if path.suffix == ".ipynb":  # what cells show; their code may well speak of such things
            cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
            shown = [o.get("data", {}) for c in cells for o in c["outputs"]]
            body += "\n".join("".join(d[k]) for d in shown for k in ("text/html", "image/svg+xml") if k in d)
        if re.search(r"!\[[^\]]*\]\((?:https?:)?//", body) or build.LOADS.search(body):
            loads.append(path.relative_to(source).as_posix())
    for path in [*source.rglob("*.svg"), *source.rglob("*.css")]:
        if re.search(r"@import|url\(\s*[\"']?(?:https?:)?//|<script", path.read_text(encoding="utf-8")):
            loads.append(path.relative_to(source).as_posix())
    assert not loads


def test_the_built_site_is_whole_if_there_is_one() -> None:
    """Every link between built pages has its file; nothing is fetched."""
    html = ROOT / "_docs" / "html"
    if not (html / "index.html").is_file():
        pytest.skip("the site is not built: make docs")
    build = load(ROOT / "tools" / "build_docs.py")
    assert build.foreign(html) == []
    link = re.compile(r'<(?:a|link|script|img)\b[^>]*?\s(?:href|src)="([^"#?]+)')
    broken = [f"{p.name}: {t}" for p in html.rglob("*.html") if "_static" not in p.parts
              for t in link.findall(p.read_text("utf-8")) if not re.match(r"[a-z]+:|//", t) and not (p.parent / t).exists()]
    assert not broken


def codes_of(page: str, heading: str) -> set[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {c for x in text.splitlines() if x.startswith("| `") for c in re.findall(r"`([A-Z_]+)`", x.split("|")[1])}


def test_every_defect_of_a_panel_has_a_row() -> None:
    found: set[str] = set()
    for name in ("panel_check", "check_tables", "panel_files"):
        tree = ast.parse((ROOT / "pil_research" / "research" / f"{name}.py").read_text(encoding="utf-8"))
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            called = ast.unparse(call.func)
            given = call.args[2:3] if called == "defect" else [k.value for k in call.keywords if k.arg == "code"] \
                if called == "Defect" else []
            found |= {str(x.value) for g in given for x in ast.walk(g) if isinstance(x, ast.Constant)}
    extensions = {"UNKNOWN_EXTENSION", "DUPLICATE_EXTENSION", "BAD_EXTENSION"}
    assert codes_of("data.md", "Defects of a panel") == found | extensions


def test_every_rule_for_a_source_has_its_row() -> None:
    from pil_research.research.prints import RULES

    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert codes_of("data.md", "Rules for a source") == set(RULES)
    assert not [k for k, rule in RULES.items() if f"| `{k}` | {rule} |" not in text]


def test_the_sources_of_the_page_are_the_commands() -> None:
    from pil_research.research.data_import import SOURCES

    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8").split("## Sources")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.M)) == set(SOURCES)


def test_the_page_on_speed_says_how_to_measure_it() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert "make bench" in text


def test_the_examples_of_extending_run() -> None:
    import numpy as np

    from pil_research.research.cost_models import with_cost_model
    from pil_research.research.synthetic_panel import synthetic_panel

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), re.S)
    space: dict[str, object] = {}
    for block in blocks[:2]:
        exec(block, space)
    weights = space["max_div"](np.array([np.diag([0.01, 0.04]), np.diag([0.04, 0.01])]))  # type: ignore[operator]
    np.testing.assert_allclose(weights, [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])
    panel = synthetic_panel(1, n_sleeves=2, n_symbols=3, n_days=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pil_research.research.cost_models.load_extension", lambda group, name: space[name])
        assert with_cost_model(panel, "twice_before_2003").cost_schedule is not None


@pytest.mark.slow
def test_the_site_builds_without_warnings() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "build_docs.py")], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
