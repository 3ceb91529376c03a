"""HRP and ERC of one window: our call, in numpy and compiled, beside riskfolio-lib and skfolio; covariance included in each."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import peers
from harness import Row, alternate, gap

from pil_research import accel
from pil_research.allocators import erc, hrp
from pil_research.allocators.engine import NUMPY, engine, install
from pil_research.allocators.erc import risk_contributions

Call = Callable[[], np.ndarray]


def draw(k: int, seed: int = 1) -> np.ndarray:
    """252 returns of k correlated sleeves with different volatilities."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((k, k)) * 0.3 + np.eye(k)
    return np.asarray(0.01 * rng.standard_normal((252, k)) @ mix * rng.uniform(0.5, 2.0, k))


def contenders(allocate: Callable[[np.ndarray], np.ndarray], window: np.ndarray) -> dict[str, Call]:
    """Our call on each engine there is; the covariance, which both share, is timed on its own."""
    cov = np.cov(window, rowvar=False)
    kernels = {NUMPY: {}}
    if accel.available():
        kernels[accel.use(True)] = accel.kernels()
        accel.use(False)

    def on(name: str) -> Call:
        def call() -> np.ndarray:
            if engine() != name:
                install(name, kernels[name])
            return np.asarray(allocate(cov))
        return call

    return {**{name: on(name) for name in kernels}, "covariance": lambda: np.cov(window, rowvar=False)}


def rows(job: str, k: int, ours: dict[str, Call], others: dict[str, Call], quick: bool, goals: dict[str, float],
         apart: Callable[[np.ndarray, np.ndarray], float], compares: str) -> list[Row]:
    """A row a peer and engine; ours counts the covariance in, as the peers do."""
    took = alternate({**ours, **others}, 5 if quick else 25, dict.fromkeys(ours, 50))
    got = {n: call() for n, call in ours.items()}
    install(NUMPY, {})
    out = []
    for name in ours:
        if name == "covariance":
            continue
        whole = took[name] + took["covariance"]
        for peer, call in others.items():
            goal = goals.get(f"{name.split()[0]}|{peer}")
            out.append(Row(job=job, case=f"K={k}, {name}", ours_s=whole, peer=peer, peer_s=took[peer],
                           difference=apart(got[name], call()), compares=compares,
                           note=f"{took[name] * 1e6:.1f} µs, {took[peer] / took[name]:,.0f}x, when the covariance is given",
                           **({} if goal is None else {"goal": f">= {goal:,.0f}x", "met": took[peer] >= goal * whole})))
        if not others:
            out.append(Row(job=job, case=f"K={k}, {name}", ours_s=took[name], note="no peer installed"))
    return out


def hrp_call(quick: bool) -> list[Row]:
    """K = 5, 8, 12."""
    out, others = [], peers.available()
    goals = {"numpy|riskfolio-lib": 40, "numpy|skfolio": 20, "numba|riskfolio-lib": 1500}
    for k in (5, 8, 12):
        window = draw(k)
        theirs = {n: (lambda f=f, w=window: f(w)) for n, f in others.items()}
        out += rows("HRP, one call", k, contenders(hrp, window), theirs, quick, goals, gap, "weights")
    return out


def erc_call(quick: bool) -> list[Row]:
    """K = 12 beside skfolio's risk budgeting; the difference is how unequal the peer's shares are."""
    window, budget = draw(12), peers.skfolio_erc()
    theirs = {} if budget is None else {"skfolio": lambda: budget(window)}
    cov = np.cov(window, rowvar=False)

    def spread(weights: np.ndarray) -> float:
        return float(np.abs(12.0 * risk_contributions(cov, weights) - 1.0).max())

    return rows("ERC, one call", 12, contenders(erc, window), theirs, quick, {"numpy|skfolio": 100, "numba|skfolio": 2000},
                lambda ours, _: spread(ours), "our risk shares to equal ones, relative")
