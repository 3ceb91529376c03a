"""Where a second process pays: the same grid in one process, on two with joblib, and on a local Dask cluster."""
from __future__ import annotations

import importlib.util
import statistics

from harness import Effort, Row, gap, seconds
from walk import WARM_UP, grid, panel_of

from pil_research.research.scale_out import scale_out
from pil_research.research.walk_forward import Track, WalkForward


def split(effort: Effort) -> list[Row]:
    """Grids of growing size; the pool stands already, its start is said apart."""
    sessions, sizes, rounds = effort.pick((10, (2, 4), 1), (126, (24, 250), 1), (504, (24, 125, 500, 1000), 3))
    panel = panel_of(sessions, 0.0)
    out: list[Row] = []
    starting = 0.0
    for n in sizes:
        tracks = [Track(name=x, config=c) for x, c in grid(n).items()]
        times: dict[str, list[float]] = {"serial": [], "joblib": []}
        found: dict[str, WalkForward] = {}

        def run(engine: str, tracks: list[Track] = tracks, found: dict[str, WalkForward] = found) -> None:
            parts = 1 if engine == "serial" else 2
            found[engine] = scale_out(panel, tracks, engine=engine, workers=2, parts=parts, start=panel.dates[WARM_UP],
                                      tables=("returns",))

        if not starting:
            starting = seconds(lambda: run("joblib"))
        for r in range(rounds):
            for engine in ("serial", "joblib")[:: 1 if r % 2 else -1]:
                times[engine].append(seconds(lambda engine=engine: run(engine)))
        one, two = (statistics.median(times[e]) for e in ("serial", "joblib"))
        out.append(_row(n, sessions, "joblib, 2 processes", two, one, found))
    if effort is Effort.FULL and importlib.util.find_spec("distributed"):
        run("dask")
        out.append(_row(n, sessions, "Dask, local cluster of 2", seconds(lambda: run("dask")), one, found, "dask"))
    paying = [r.case for r in out if (r.ratio or 0.0) > 1.1 and "joblib" in r.case]
    first = "two processes " + (f"first saved a tenth at {paying[0].split(', ')[0]}" if paying else "never saved a tenth")
    note = f"{first}; the very first call, pool start included, took {starting:.1f} s"
    return [Row(**{**r.__dict__, "note": note if i == 0 else r.note}) for i, r in enumerate(out)]


def _row(n: int, sessions: int, how: str, ours: float, one: float, found: dict[str, WalkForward],
         engine: str = "joblib") -> Row:
    note = "" if engine == "joblib" else "cluster start and end included"
    return Row(job="scale-out", case=f"{n:,} configurations, {sessions} sessions, {how}", ours_s=ours, peer="ours, one process",
               peer_s=one, difference=gap(found["serial"].returns, found[engine].returns), compares="daily net returns",
               note=note)
