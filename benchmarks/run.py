"""Speed, memory and growth beside other libraries: one process, one thread, contenders in turns, medians.

Read the ratios; the absolute times belong to the machine. Beside each ratio stands how far the two answers are apart.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

ROOT = Path(__file__).resolve().parents[1]
JOBS = {"live": "live.live_step", "slot": "session.live_slot", "import": "start.imports", "hrp": "allocate.hrp_call",
        "erc": "allocate.erc_call", "walk": "walk.walk_forward", "configs": "walk.configurations", "thousand": "walk.thousand",
        "cscv": "selection.cscv_job", "vol": "risk.book_vol_job", "memory": "memory.peak", "growth": "growth.growth",
        "scale": "scale.split"}


def job(name: str) -> Callable[..., list]:
    """The function of a job, imported only now, after the threads were set."""
    from importlib import import_module

    module, function = JOBS[name].split(".")
    return getattr(import_module(module), function)


def main(argv: list[str] | None = None) -> int:
    """Run the jobs asked for, print the table, write the JSON; or write a finished run into a page of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", action="append", choices=list(JOBS), help="only this one; repeatable")
    parser.add_argument("--quick", action="store_true", help="some minutes instead of half an hour; ratios are rougher")
    parser.add_argument("--tiny", action="store_true", help="seconds: only shows that every job runs")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "latest.json", help="JSON file to write")
    parser.add_argument("--docs", type=Path, help="write the table between the bench markers of this page")
    parser.add_argument("--from", dest="given", type=Path, help="a finished run's JSON: nothing is measured")
    args = parser.parse_args(argv)

    from harness import Effort, text_table, versions, write_json

    if args.given:
        found = json.loads(args.given.read_text(encoding="utf-8"))
    else:
        effort, rows = Effort.TINY if args.tiny else Effort.QUICK if args.quick else Effort.FULL, []
        for name in JOBS:
            if not args.job or name in args.job:
                sys.stderr.write(f"[{name}] ...\n")
                rows += job(name)(effort)
        found = write_json(rows, args.out, effort)
        print(text_table(rows))
        print("\n" + ", ".join(f"{k} {v}" for k, v in versions().items()) + f", 1 thread, {effort.name.lower()}")
        print(f"json: {args.out.relative_to(Path.cwd()) if args.out.is_relative_to(Path.cwd()) else args.out}")
    if args.docs:
        from pil_research.research.bench_page import write_docs

        write_docs(args.docs, found)
        print(f"docs: {args.docs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
