"""Speed beside riskfolio-lib and skfolio: one process, one thread, contenders in turns, medians.

Read the ratios; the absolute times belong to the machine. Beside each ratio stands how far the two answers are apart.
"""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

ROOT = Path(__file__).resolve().parents[1]


def jobs() -> dict[str, Callable[[bool], list]]:
    """Job names and their functions, imported only now, after the threads were set."""
    from allocate import erc_call, hrp_call
    from live import live_step
    from walk import configurations, thousand, walk_forward

    return {"live": live_step, "hrp": hrp_call, "erc": erc_call, "walk": walk_forward, "configs": configurations,
            "thousand": thousand}


def main(argv: list[str] | None = None) -> int:
    """Run the jobs asked for, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", action="append", choices=["live", "hrp", "erc", "walk", "configs", "thousand"],
                        help="only this one; repeatable")
    parser.add_argument("--quick", action="store_true", help="a minute instead of several; ratios are rougher")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "latest.json", help="JSON file to write")
    args = parser.parse_args(argv)

    from harness import text_table, versions, write_json

    rows = []
    for name, job in jobs().items():
        if not args.job or name in args.job:
            sys.stderr.write(f"[{name}] ...\n")
            rows += job(args.quick)
    write_json(rows, args.out, args.quick)
    print(text_table(rows))
    print("\n" + ", ".join(f"{k} {v}" for k, v in versions().items()) + ", 1 thread" + (", quick" if args.quick else ""))
    print(f"json: {args.out.relative_to(Path.cwd()) if args.out.is_relative_to(Path.cwd()) else args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
