"""Run `make demo` and `make test` and put what they print into nbs/index.ipynb, between its markers.

    python tools/capture_output.py                # both
    python tools/capture_output.py demo           # one of them

A block is `<!-- printed by make NAME -->` up to `<!-- end -->`. Progress bars go to standard error and are not kept; of
`make test` only the last line is.
"""
from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / "nbs" / "index.ipynb"


def printed(command: str) -> str:
    """Standard output of `make command`, without paths of this machine, and the time it took."""
    began = time.monotonic()
    done = subprocess.run(["make", "-s", command], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "COLUMNS": "110"})
    if done.returncode:
        raise SystemExit(f"make {command} failed with exit code {done.returncode}; its output was not taken over")
    lines = [x.rstrip() for x in done.stdout.replace(f"{ROOT}/", "").strip().split("\n")]
    if command == "test":
        lines = [re.sub(r"^=+ | =+$", "", lines[-1])]
    lines = [y for x in lines for y in (textwrap.wrap(x, 118, subsequent_indent="  ") if len(x) > 118 else [x])]
    minutes = (time.monotonic() - began) / 60.0
    return "\n".join([f"$ make {command}", *lines, f"# {minutes:.1f} minutes, set-up already done"])


def insert(text: str, command: str, output: str) -> str:
    """A cell's text with the block of one command replaced."""
    pattern = re.compile(rf"(<!-- printed by make {command} -->\n).*?(<!-- end -->)", re.S)
    return pattern.sub(lambda m: f"{m[1]}```text\n{output}\n```\n{m[2]}", text)


def main(argv: list[str] | None = None) -> int:
    """Run the commands and rewrite the notebook."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="*", help="demo, test (default: both)")
    args = parser.parse_args(argv)
    subprocess.run(["make", "-s", "setup"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for command in args.command or ["demo", "test"]:
        output = printed(command)
        nb = nbformat.read(INDEX, as_version=4)
        for cell in nb.cells:
            if cell.cell_type == "markdown":
                cell.source = insert(cell.source, command, output)
        INDEX.write_text(nbformat.writes(nb, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        subprocess.run([sys.executable, ROOT / "tools" / "build_readme.py"], cwd=ROOT, check=True)  # a test compares them
    return 0


if __name__ == "__main__":
    sys.exit(main())
