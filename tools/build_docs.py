"""The documentation site: notebooks and docs/ copied to _docs/source, then sphinx with warnings as errors.

From the notebooks, cells that only set things up (`#| default_exp`, `#| hide`) are left out and `#|` lines are dropped; what
remains, outputs included, is the page. Nothing is executed and nothing is fetched.
"""
from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "_docs"
GROUPS = {
    "stages": ("Stages", "One lesson a stage, in the order of their numbers; then how they are put together.", r"[12]\d"),
    "live": ("Live", "State that survives a crash, the session calendar, one slot at a time, replay.", r"3\d"),
    "estimates": ("Estimates and allocators", "What the stages read: values, configuration, estimators, allocators.", r"0\d"),
    "research": ("Research", "Data, reference sleeves, walk-forward, the gates, verdict, reports, command line.", r"[456]\d")}
LOADS = re.compile(r'<(?:script|img|iframe|source)[^>]+src="(?:https?:)?//|<link[^>]+href="(?:https?:)?//'
                   r'|<style[^>]*>[^<]*@import')


def page(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook as a page."""
    cells = []
    for cell in nb.cells:
        if cell.cell_type == "code":
            lines = cell.source.split("\n")
            flags = [x.replace(" ", "") for x in lines if x.lstrip().startswith("#|")]
            if any(f.startswith(("#|hide", "#|default_exp")) for f in flags):
                continue
            cell.source = "\n".join(x for x in lines if not x.lstrip().startswith("#|")).strip("\n")
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        if cell.source.strip():
            cells.append(cell)
    nb.cells = cells
    nb.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return nb


def copy_notebooks(source: Path) -> list[str]:
    """Write the pages; returns their names in reading order."""
    (source / "nbs").mkdir(parents=True)
    names = []
    for path in sorted((ROOT / "nbs").glob("[0-9]*.ipynb")):
        nbformat.write(page(nbformat.read(path, as_version=4)), source / "nbs" / path.name)
        names.append(path.stem)
    return names


def groups(names: list[str]) -> dict[str, str]:
    """One contents page a group of notebooks."""
    out = {}
    for name, (title, text, pattern) in GROUPS.items():
        members = [f"nbs/{n}" for n in names if re.match(pattern, n)]
        out[name] = "\n".join([f"# {title}", "", text, "", "```{toctree}", ":maxdepth: 1", "", *members, "```", ""])
    return out


def modules() -> list[str]:
    """Importable modules of the package that have public names, in dotted form."""
    found = []
    for path in sorted((ROOT / "pil_research").rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] in ("_modidx", "__main__"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = any(isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__" for n in tree.body)
        if public and parts[-1] != "__init__":
            found.append(".".join(parts))
    return found


def only_names(module: str) -> bool:
    """True for a module that defines nothing and lists names of others."""
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    return not any(isinstance(n, (ast.FunctionDef, ast.ClassDef)) for n in tree.body)


def api_pages(source: Path) -> str:
    """One page a module; returns the contents page."""
    (source / "api").mkdir()
    rows = {"Core": [], "Stages": [], "Estimators and allocators": [], "Live": [], "Research": []}
    for name in modules():
        short = name.removeprefix("pil_research.")
        again = ["   :no-index:"] if only_names(name) else []  # names of other pages: linked there, shown here
        text = "\n".join([f"# {short}", "", "```{eval-rst}", f".. automodule:: {name}", "   :members:", *again, "```", ""])
        (source / "api" / f"{short}.md").write_text(text, encoding="utf-8")
        kind = {"stages": "Stages", "estimators": "Estimators and allocators", "allocators": "Estimators and allocators",
                "live": "Live", "research": "Research"}.get(short.split(".")[0], "Core")
        rows[kind].append(f"api/{short}")
    parts = ["# API reference", "", "Public names, by module. Shapes, units and errors are in each entry.", ""]
    for kind, members in rows.items():
        parts += [f"## {kind}", "", "```{toctree}", ":maxdepth: 1", "", *members, "```", ""]
    return "\n".join(parts)


def readme_start() -> str:
    """The commands, quickstart and daemon sections of the README, with links that work from the site."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    sections = re.split(r"^(?=## )", text, flags=re.M)
    wanted = [s for s in sections if s.startswith(("## Two commands", "## Quickstart", "## In a daemon"))]
    return re.sub(r"<!--.*?-->\n?", "", "\n".join(wanted)).replace("](docs/", "](")


def prepare(source: Path) -> None:
    """Everything sphinx reads, in one fresh folder."""
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in {**groups(copy_notebooks(source)), "api": api_pages(source)}.items():
        (source / f"{name}.md").write_text(text, encoding="utf-8")
    (source / "readme_start.md").write_text(readme_start(), encoding="utf-8")


def foreign(html: Path) -> list[str]:
    """Pages that would load something from another host."""
    return [str(p.relative_to(html)) for p in sorted(html.rglob("*.html")) if LOADS.search(p.read_text(encoding="utf-8"))]


def main(argv: list[str] | None = None) -> int:
    """Prepare, build, look for foreign requests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="stop before sphinx")
    args = parser.parse_args(argv)
    for needed in ("sphinx", "myst_nb", "pydata_sphinx_theme", "numpydoc", "latex2mathml"):
        if importlib.util.find_spec(needed) is None:
            raise SystemExit(f"{needed} is not installed; run `make setup`")
    source, html = OUT / "source", OUT / "html"
    shutil.rmtree(OUT, ignore_errors=True)
    prepare(source)
    if args.prepare:
        return 0
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-j", "2", "-d", str(OUT / "trees"),
               str(source), str(html)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "MPLBACKEND": "Agg"})
    if done.returncode:
        return done.returncode
    bad = foreign(html)
    print(f"{len(bad)} pages load from elsewhere: {', '.join(bad[:5])}" if bad else f"site: {html.relative_to(ROOT)}/index.html")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
