"""Peak memory of whole runs, each in an interpreter of its own."""
from __future__ import annotations

from harness import Effort, Row, child

CODE = """
import json, sys, time
import walk

def forget_peak():
    try:  # Linux: from here on the peak starts at what is in memory now
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
        return True
    except OSError:
        return False

configs, sessions, k, m = map(int, sys.argv[1:])
panel = walk.panel_of(sessions, 0.0, k, m)
making = rss_mb()
forgot = forget_peak()
before = rss_mb()
began = time.perf_counter()
found = walk.walk(panel, walk.grid(configs) if configs > 1 else {"hrp": walk.PILConfig()}, ("returns",))
finite = bool(found.returns.notna().all(axis=None))
print(json.dumps({"s": time.perf_counter() - began, "finite": finite, "before": before, "making": making,
                  "forgot": forgot, "mb": rss_mb()}))
"""


def peak(effort: Effort) -> list[Row]:
    """1,000 configurations x 20 years x 50 symbols, and one configuration x 2 years x 3,000 symbols: both under 1 GB."""
    many = effort.pick((4, 10, 3, 8), (1000, 252, 8, 50), (1000, 5040, 8, 50))
    wide = effort.pick((1, 10, 3, 12), (1, 504, 5, 3000), (1, 504, 5, 3000))
    out = []
    for (configs, sessions, k, m), whole in ((many, effort is Effort.FULL), (wide, effort > Effort.TINY)):
        got = child(CODE, configs, sessions, k, m)
        note = f"{got['before']:,.0f} MB of it stand before the walk: interpreter, packages, panel; net returns kept; "
        note += (f"inventing the panel took up to {got['making']:,.0f} MB, which is not counted" if got["forgot"]
                 else "inventing the panel is counted")
        if not whole:
            note += "; smaller than the goal's size, so nothing is judged"
        elif got["mb"] >= 1000.0:
            note += f"; missed by {got['mb'] - 1000.0:,.0f} MB: the panel's targets are K x M x 8 bytes a session"
        out.append(Row(job="memory", case=f"{configs:,} configurations, {sessions:,} sessions, K={k} M={m:,}", ours_s=got["s"],
                       memory_mb=got["mb"], goal="< 1 GB", met=got["mb"] < 1000.0 and got["finite"] if whole else None,
                       note=note))
    return out
