"""What starting costs: imports in fresh interpreters, in turns, with the memory they leave behind."""
from __future__ import annotations

import importlib.util
import statistics

from harness import Effort, Row, absent, child

LIVE, FLOOR, PEER = "import pil_research.live", "import pandas, scipy.cluster.hierarchy", "import riskfolio"
CODE = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
began = time.perf_counter()
exec(sys.argv[1])
print(json.dumps({"s": time.perf_counter() - began, "mb": rss_mb()}))
"""


def imports(effort: Effort) -> list[Row]:
    """The live path beside the packages it cannot do without, and beside riskfolio-lib."""
    statements = [LIVE, FLOOR, *([PEER] if importlib.util.find_spec("riskfolio") else [])]
    statements = effort.pick(statements[:2], statements, statements)
    found: dict[str, list[dict[str, float]]] = {s: [] for s in statements}
    rounds = effort.pick(1, 3, 9)
    for r in range(rounds + (effort > Effort.TINY)):
        for s in statements[r % len(statements):] + statements[: r % len(statements)]:
            found[s].append(child(CODE, s))
    if effort > Effort.TINY:
        found = {s: x[1:] for s, x in found.items()}  # the first round fills the disk cache
    took = {s: statistics.median(x["s"] for x in f) for s, f in found.items()}
    memory = {s: statistics.median(x["mb"] for x in f) for s, f in found.items()}
    ours, note = took[LIVE], f"median of {rounds} fresh interpreters each, in turns"
    slower = ours / took[FLOOR]
    why = f"; missed: {slower:.2f}x, the rest are our own modules and exchange_calendars"
    out = [Row(job="live import", case=LIVE, ours_s=ours, peer="pandas, scipy.cluster", peer_s=took[FLOOR],
               goal="<= 1.2x its time", met=slower <= 1.2, note=note + ("" if slower <= 1.2 else why), memory_mb=memory[LIVE],
               peer_memory_mb=memory[FLOOR])]
    if effort is Effort.TINY:
        return out
    if PEER not in took:
        return [*out, absent("live import", LIVE, ours, "riskfolio-lib", ">= 8x")]
    ratio = took[PEER] / ours
    return [*out, Row(job="live import", case=LIVE, ours_s=ours, peer="riskfolio-lib", peer_s=took[PEER], goal=">= 8x",
                      met=ratio >= 8.0,
                      note=note if ratio >= 8.0 else f"{note}; missed by a factor of {8.0 / ratio:.2f}: pandas and scipy, "
                      "which both import, are most of our time", memory_mb=memory[LIVE], peer_memory_mb=memory[PEER])]
