"""HRP and ERC of one window: our call, in numpy and compiled, beside the peers; with the covariance given and included."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import peers
from harness import Effort, Row, absent, alternate, gap, goal_of, missed, ready

from pil_research import accel
from pil_research.allocators import erc, hrp, window_weights
from pil_research.allocators.erc import risk_contributions
from pil_research.engine import NUMPY, engine
from pil_research.estimators.covariance import sample_covariance

Call = Callable[[], np.ndarray]
INCLUDED, GIVEN = "from returns", "covariance given"
HRP_GOALS = {"numpy|riskfolio-lib": 40.0, "numpy|skfolio": 20.0, "numba|riskfolio-lib": 1500.0}
ERC_GOALS = {"numpy|skfolio": 100.0, "numba|skfolio": 2000.0}


def draw(k: int, seed: int = 1) -> np.ndarray:
    """252 returns of k correlated sleeves with different volatilities."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((k, k)) * 0.3 + np.eye(k)
    return np.asarray(0.01 * rng.standard_normal((252, k)) @ mix * rng.uniform(0.5, 2.0, k))


def engines() -> list[str]:
    """numpy, and numba where it is installed; numpy answers afterwards."""
    if not accel.available():
        return [NUMPY]
    found = [NUMPY, accel.use(True)]
    accel.use(False)
    return found


def on(name: str, call: Callable[[], Any]) -> Callable[[], Any]:
    """`call`, with `ready` to put this engine in place before the clock runs."""
    def place() -> None:
        if engine() != name:
            accel.use(name != NUMPY)

    run = partial(call)
    run.ready = place  # type: ignore[attr-defined]
    return run


def contenders(allocate: Callable[[np.ndarray], np.ndarray], window: np.ndarray) -> dict[tuple[str, str], Call]:
    """Our call by engine and by what it starts from."""
    cov, out, method = sample_covariance(window), {}, allocate.__name__
    for name in engines():
        out[name, INCLUDED] = on(name, lambda: window_weights(window, method))
        out[name, GIVEN] = on(name, lambda: allocate(cov))
    return out


def rows(job: str, k: int, ours: dict[tuple[str, str], Call], others: dict[tuple[str, str], Call], effort: Effort,
         goals: dict[str, float], apart: Callable[[np.ndarray, str, np.ndarray], float], most: float, compares: str) -> list[Row]:
    """A row an engine, a start and a peer. Goals are judged from returns, where both sides do the same work."""
    took = alternate({**{"|".join(n): c for n, c in ours.items()}, **{"|".join(n): c for n, c in others.items()}},
                     effort.pick(1, 5, 25), {"|".join(n): effort.pick(2, 50, 50) for n in ours})
    mine, theirs = {}, {n: call() for n, call in others.items()}
    for n, call in ours.items():
        ready(call)
        mine[n] = call()
    accel.use(False)
    out = []
    for (name, start), weights in mine.items():
        spent = took[f"{name}|{start}"]
        for (peer, theirs_start), answer in theirs.items():
            if theirs_start == GIVEN and start == INCLUDED:
                continue
            ratio, far = took[f"{peer}|{theirs_start}"] / spent, apart(weights, peer, answer)
            least = goals.get(f"{name.split()[0]}|{peer}") if start == INCLUDED else None
            note = "" if start == theirs_start else "the peer's time holds its own covariance: compare the row from returns"
            if start == theirs_start or (peer, GIVEN) not in theirs:
                share = max(spent - took[f"{name}|{GIVEN}"], 0.0) / spent
                why = f"the sample covariance is {share:.0%} of our time"
                out.append(Row(job=job, case=f"K={k}, {name.split()[0]}, {start}", ours_s=spent, peer=peer, difference=far,
                               peer_s=took[f"{peer}|{theirs_start}"], compares=compares,
                               note=missed(note, ratio, least or 0.0, why), **goal_of(ratio, least, right=not far > most)))
    installed = {peer for peer, _ in others}
    for key, least in goals.items():
        name, peer = key.split("|")
        if peer not in installed:
            out.append(absent(job, f"K={k}, {name}, {INCLUDED}", took[f"{NUMPY}|{INCLUDED}"], peer, f">= {least:,.0f}x"))
    return out


def hrp_call(effort: Effort) -> list[Row]:
    """K = 5, 8, 12. PyPortfolioOpt does not reorder leaves: its answer is compared with ours without reordering."""
    out = []
    for k in effort.pick((5,), (5, 8, 12), (5, 8, 12)):
        window = draw(k)
        cov, given = sample_covariance(window), peers.pypfopt_hrp(given=True)
        theirs: dict[tuple[str, str], Call] = {(n, INCLUDED): (lambda f=f, w=window: f(w)) for n, f in peers.hrp_peers().items()}
        if given is not None:
            theirs["PyPortfolioOpt", GIVEN] = lambda f=given, c=cov: f(c)
        plain = hrp(cov, leaf_order=False)

        def apart(ours: np.ndarray, peer: str, answer: np.ndarray, plain: np.ndarray = plain) -> float:
            return gap(plain if peer == "PyPortfolioOpt" else ours, answer)

        out += rows("HRP, one call", k, contenders(hrp, window), theirs, effort, HRP_GOALS, apart, 1e-12,
                    "weights; PyPortfolioOpt against ours without leaf ordering, which ours is timed with")
    return out


def erc_call(effort: Effort) -> list[Row]:
    """K = 5, 8, 12; the difference is how unequal our risk shares are, and the goal needs them equal to 1e-10."""
    out = []
    for k in effort.pick((5,), (5, 8, 12), (5, 8, 12)):
        window = draw(k)
        cov = sample_covariance(window)

        def spread(weights: np.ndarray, k: int = k, cov: np.ndarray = cov) -> float:
            return float(np.abs(k * risk_contributions(cov, weights) - 1.0).max())

        theirs = {(n, INCLUDED): (lambda f=f, w=window: f(w)) for n, f in peers.erc_peers().items()}
        found = rows("ERC, one call", k, contenders(erc, window), theirs, effort, ERC_GOALS if k == 12 else {},
                     lambda ours, peer, answer, spread=spread: spread(ours), 1e-10,
                     "our risk shares to equal ones, relative; " + ", ".join(
                         f"{n}'s are {spread(call()):.0e} away" for (n, _), call in theirs.items()) + f" at K={k}")
        out += found
    return out
