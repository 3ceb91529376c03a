"""README.md from nbs/index.ipynb; with --check, exit 1 when the two differ.

Cells with `#| hide` are left out, `#|` lines are dropped, text outputs are kept, links to `../` lose it. Figures in outputs
are refused: pictures of the README are files under docs/img.
"""
from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
SOURCE, TARGET = ROOT / "nbs" / "index.ipynb", ROOT / "README.md"


def hidden(cell: nbformat.NotebookNode) -> bool:
    """True for a cell that does not belong on the page."""
    first = cell.source.lstrip().split("\n", 1)[0].replace(" ", "")
    return cell.cell_type == "code" and first.startswith(("#|hide", "#|default_exp"))


def with_files(text: str) -> str:
    """The block below a `<!-- file: PATH -->` line is that file."""
    def block(found: re.Match[str]) -> str:
        return f"{found[1]}{(ROOT / found[2]).read_text(encoding='utf-8').rstrip()}\n```"
    return re.sub(r"(<!-- file: (\S+) -->\n```python\n).*?\n```", block, text, flags=re.S)


def readme(source: Path) -> str:
    """The Markdown of a notebook."""
    nb = nbformat.read(source, as_version=4)
    nb.cells = [c for c in nb.cells if not hidden(c)]
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.source = "\n".join(x for x in cell.source.split("\n") if not x.lstrip().startswith("#|")).strip("\n")
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for out in cell.outputs:
                if "text/plain" in out.get("data", {}):
                    out.data = {"text/plain": out.data["text/plain"]}  # HTML tables lose their style on a README
        else:
            cell.source = cell.source.replace("](../", "](")
    nb.cells = [c for c in nb.cells if c.source.strip()]
    nb.metadata["language_info"] = {"name": "python"}
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources.get("outputs"):
        raise SystemExit(f"{source.name} holds figures ({', '.join(resources['outputs'])}); keep the index free of plots")
    lines = [x.rstrip() for x in text.strip().split("\n")]
    note = f"<!-- Written by tools/build_readme.py from nbs/{source.name}; edit the notebook. -->"
    return with_files("\n".join([note, "", *[x for i, x in enumerate(lines) if x or (i and lines[i - 1])]]) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Write README.md, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when README.md is out of date")
    parser.add_argument("--source", type=Path, default=SOURCE)
    parser.add_argument("--target", type=Path, default=TARGET)
    args = parser.parse_args(argv)
    text = readme(args.source)
    if args.check:
        same = args.target.is_file() and args.target.read_text(encoding="utf-8") == text
        if not same:
            sys.stderr.write(f"{args.target.name} is not what {args.source.name} gives; run tools/build_readme.py\n")
        return 0 if same else 1
    args.target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
