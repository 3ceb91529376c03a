"""HRP of one window: our call beside riskfolio-lib and skfolio, covariance included in each."""
from __future__ import annotations

import numpy as np
import peers
from harness import Row, alternate, gap

from pil_research.allocators import hrp


def draw(k: int, seed: int = 1) -> np.ndarray:
    """252 returns of k correlated sleeves with different volatilities."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((k, k)) * 0.3 + np.eye(k)
    return np.asarray(0.01 * rng.standard_normal((252, k)) @ mix * rng.uniform(0.5, 2.0, k))


def hrp_call(quick: bool) -> list[Row]:
    """K = 5, 8, 12."""
    rows, others = [], peers.available()
    for k in (5, 8, 12):
        window = draw(k)

        def ours(window: np.ndarray = window) -> np.ndarray:
            return np.asarray(hrp(np.cov(window, rowvar=False)))

        calls = {"ours": ours, **{n: (lambda f=f, w=window: f(w)) for n, f in others.items()}}
        took = alternate(calls, 5 if quick else 25, {"ours": 50})
        rows += [Row(job="HRP, one call", case=f"K={k}, 252 bars", ours_s=took["ours"], peer=name, peer_s=took[name],
                     difference=gap(ours(), f(window)), compares="weights") for name, f in others.items()]
        if not others:
            rows.append(Row(job="HRP, one call", case=f"K={k}, 252 bars", ours_s=took["ours"], note="no peer installed"))
    return rows
