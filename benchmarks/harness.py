"""Timing in turns: every contender once a round, in rotating order, medians at the end."""
from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np


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
    met: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Peer's time over ours; above 1 we are faster."""
        return None if self.peer_s is None else self.peer_s / self.ours_s


def alternate(contenders: Mapping[str, Callable[[], object]], rounds: int,
              inner: Mapping[str, int] | None = None) -> dict[str, float]:
    """Median seconds of one call of each contender; `inner` calls make one sample."""
    names, repeats = list(contenders), dict(inner or {})
    for call in contenders.values():
        call()  # warm
    samples: dict[str, list[float]] = {n: [] for n in names}
    for r in range(rounds):
        for name in names[r % len(names):] + names[: r % len(names)]:
            n, call = repeats.get(name, 1), contenders[name]
            began = time.perf_counter()
            for _ in range(n):
                call()
            samples[name].append((time.perf_counter() - began) / n)
    return {n: statistics.median(s) for n, s in samples.items()}


def seconds(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def gap(a: object, b: object) -> float:
    """Largest absolute difference of two arrays."""
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).max())


def versions() -> dict[str, str]:
    """Versions that a number depends on."""
    out = {"python": platform.python_version()}
    for name in ("numpy", "scipy", "pandas", "pil_research", "riskfolio-lib", "skfolio"):
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "absent"
    return out


def span(s: float | None) -> str:
    """Seconds in the unit a reader expects."""
    if s is None:
        return ""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (600.0, 1.0, "s")):
        if s < limit:
            return f"{s * factor:.3g} {unit}"
    return f"{s / 60:.3g} min"


def text_table(rows: Sequence[Row]) -> str:
    """The rows as fixed-width text, one blank line between jobs."""
    heads = ("job", "case", "ours", "peer", "peer's time", "ratio", "difference", "goal")
    body, last = [], ""
    for r in rows:
        if r.job != last and last:
            body.append(("",) * len(heads))
        ratio = "" if r.ratio is None else f"{r.ratio:,.3g}x"
        goal = r.goal + {True: " (met)", False: " (missed)", None: ""}[r.met]
        body.append(("" if r.job == last else r.job, r.case, span(r.ours_s), r.peer, span(r.peer_s), ratio,
                     "" if r.difference is None else f"{r.difference:.1e}", goal))
        last = r.job
    width = [max(len(str(x[i])) for x in (heads, *body)) for i in range(len(heads))]
    lines = ["  ".join(str(c).ljust(w) for c, w in zip(x, width, strict=True)).rstrip() for x in (heads, *body)]
    notes = dict.fromkeys(f"{r.job}, {r.case}: {r.note}" for r in rows if r.note)
    compares = dict.fromkeys(f"{r.job}: difference is {r.compares}" for r in rows if r.compares)
    return "\n".join([*lines, "", *compares, *notes])


def write_json(rows: Sequence[Row], path: Path, quick: bool) -> None:
    """All rows with versions; numbers raw."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"schema": "pil.bench/1", "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "quick": quick,
            "threads": 1, "versions": versions(), "rows": [{**asdict(r), "ratio": r.ratio} for r in rows]}
    path.write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
