"""Timing in turns: every contender once a round, in rotating order, medians at the end."""
from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

HERE = Path(__file__).resolve().parent
X = TypeVar("X")


class Effort(IntEnum):
    """How large the jobs are; goals are worded for FULL."""

    TINY = 0  # of the tests: seconds, no figure means anything
    QUICK = 1
    FULL = 2

    def pick(self, tiny: X, quick: X, full: X) -> X:
        """The setting of this size."""
        return (tiny, quick, full)[self]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: our time, a peer's, their ratio, and how far the two answers are apart."""

    job: str
    case: str
    ours_s: float
    peer: str = ""
    peer_s: float | None = None
    difference: float | None = None
    compares: str = ""  # what `difference` is the largest absolute difference of
    goal: str = ""
    met: bool | None = None  # None: no goal, or not judged and the note says why
    note: str = ""
    memory_mb: float | None = None  # peak, ours
    peer_memory_mb: float | None = None
    axis: str = ""  # what grows along `curve`
    curve: tuple[tuple[float, float], ...] = ()  # (size, seconds)
    exponent: float | None = None

    @property
    def ratio(self) -> float | None:
        """Peer's time over ours; above 1 we are faster."""
        return None if self.peer_s is None else self.peer_s / self.ours_s


def alternate(contenders: Mapping[str, Callable[[], object]], rounds: int,
              inner: Mapping[str, int] | None = None) -> dict[str, float]:
    """Median seconds of one call of each contender; `inner` calls make one sample."""
    names, repeats = list(contenders), dict(inner or {})
    for call in contenders.values():
        ready(call)
        call()  # warm
    samples: dict[str, list[float]] = {n: [] for n in names}
    for r in range(rounds):
        for name in names[r % len(names):] + names[: r % len(names)]:
            n, call = repeats.get(name, 1), contenders[name]
            ready(call)
            began = time.perf_counter()
            for _ in range(n):
                call()
            samples[name].append((time.perf_counter() - began) / n)
    return {n: statistics.median(s) for n, s in samples.items()}


def ready(call: Callable[[], object]) -> None:
    """What must stand before the clock runs, where a contender names it: the engine it answers with."""
    prepare = getattr(call, "ready", None)
    if prepare is not None:
        prepare()


def seconds(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    ready(call)
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def goal_of(ratio: float | None, least: float | None, right: bool = True) -> dict[str, Any]:
    """Fields of a ratio goal; an answer that is not `right` does not meet it."""
    if least is None:
        return {}
    return {"goal": f">= {least:,.0f}x", "met": None if ratio is None else bool(ratio >= least and right)}


def missed(row_note: str, ratio: float, least: float, why: str) -> str:
    """The note, with how far a missed goal is away and why."""
    return row_note if ratio >= least else f"{row_note}; missed by a factor of {least / ratio:.2f}: {why}".lstrip("; ")


def absent(job: str, case: str, ours_s: float, peer: str, goal: str = "") -> Row:
    """The row of a peer that is not installed: nothing is judged."""
    return Row(job=job, case=case, ours_s=ours_s, peer=peer, goal=goal, note=f"{peer} is not installed, so nothing is judged")


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Growth exponent: the slope of log seconds on log size."""
    x, y = np.log(np.asarray(points, dtype=float)).T
    return float(np.polyfit(x, y, 1)[0])


def peak_mb(call: Callable[[], object]) -> float:
    """Peak of the memory that a call takes, in MB; numpy's arrays are counted."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


RSS = """
def rss_mb():
    import re, resource, sys
    try:  # of this program alone; ru_maxrss also counts what stood in memory before it was started
        with open("/proc/self/status") as f:
            return int(re.search(r"VmHWM:\\s+(\\d+)", f.read()).group(1)) * 1024 / 1e6
    except (OSError, AttributeError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
"""


def child(code: str, *arguments: object) -> dict[str, Any]:
    """Run `code` in a fresh interpreter, with `rss_mb` defined; what it printed as JSON on its last line."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run([sys.executable, "-c", RSS + code, *map(str, arguments)], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""})
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def gap(a: object, b: object) -> float:
    """Largest absolute difference of two arrays."""
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).max())


def versions() -> dict[str, str]:
    """Versions that a number depends on."""
    out = {"python": platform.python_version()}
    for name in ("numpy", "scipy", "pandas", "pil_research", "riskfolio-lib", "skfolio", "PyPortfolioOpt", "purgedcv",
                 "holdout-backtest", "bt", "numba", "joblib", "distributed"):
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "absent"
    return out


def text_table(rows: Sequence[Row]) -> str:
    """The rows as fixed-width text, one blank line between jobs."""
    from pil_research.research.bench_page import WORDS, difference_text, result_text, span

    heads = ("job", "case", "ours", "peer", "peer's time", "result", "difference", "goal")
    body, last = [], ""
    for r in rows:
        if r.job != last and last:
            body.append(("",) * len(heads))
        goal, facts = f"{r.goal} ({WORDS[r.met]})" if r.goal else "", {**asdict(r), "ratio": r.ratio}
        body.append(("" if r.job == last else r.job, r.case, span(r.ours_s), r.peer, span(r.peer_s), result_text(facts),
                     difference_text(facts), goal))
        last = r.job
    width = [max(len(str(x[i])) for x in (heads, *body)) for i in range(len(heads))]
    lines = ["  ".join(str(c).ljust(w) for c, w in zip(x, width, strict=True)).rstrip() for x in (heads, *body)]
    notes = dict.fromkeys(f"{r.job}, {r.case}: {r.note}" for r in rows if r.note)
    compares = dict.fromkeys(f"{r.job}: difference is {r.compares}" for r in rows if r.compares)
    return "\n".join([*lines, "", *compares, *notes])


def write_json(rows: Sequence[Row], path: Path, effort: Effort) -> dict[str, Any]:
    """All rows with versions; numbers raw."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"schema": "pil.bench/2", "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "effort": effort.name.lower(),
            "threads": 1, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "versions": versions(),
            "rows": [{**asdict(r), "ratio": r.ratio} for r in rows]}
    path.write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return dict(json.loads(path.read_text(encoding="utf-8")))
