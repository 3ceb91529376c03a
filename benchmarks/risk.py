"""Volatility of one book under the exact shrunk covariance: without forming the matrix, and with it."""
from __future__ import annotations

import numpy as np
import peers
from harness import Effort, Row, alternate, goal_of, missed

from pil_research.estimators.book_vol import book_vol, book_vol_dense

BARS = 120


def dense_vol(returns: np.ndarray, book: np.ndarray) -> float:
    """Ledoit and Wolf (2003), constant correlation, as published: matrices of M x M throughout."""
    t = len(returns)
    y = returns - returns.mean(axis=0)
    s = y.T @ y / t
    v = np.diag(s)
    sd, m = np.sqrt(v), len(v)
    r = ((s / np.outer(sd, sd)).sum() - m) / (m * (m - 1))
    f = r * np.outer(sd, sd)
    np.fill_diagonal(f, v)
    pi = (y * y).T @ (y * y) / t - s * s
    theta = (y ** 3).T @ y / t - v[:, None] * s
    np.fill_diagonal(theta, 0.0)
    rho = np.trace(pi) + r * (np.outer(1.0 / sd, sd) * theta).sum()
    delta = np.clip((pi.sum() - rho) / ((f - s) ** 2).sum() / t, 0.0, 1.0)
    return float(np.sqrt(book @ (delta * f + (1.0 - delta) * s) @ book))


def book(m: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A window of returns with one common factor, and a long-short book."""
    rng = np.random.default_rng(seed)
    returns = 0.01 * (rng.standard_normal((BARS, m)) + 0.4 * rng.standard_normal((BARS, 1))) * rng.uniform(0.5, 2.0, m)
    return returns, rng.standard_normal(m) / m


def book_vol_job(effort: Effort) -> list[Row]:
    """M = 3,000 and 120 bars, shrinkage intensity included."""
    m, rounds = effort.pick(40, 3000, 3000), effort.pick(1, 3, 9)
    returns, weights = book(m)
    contenders = {"ours": lambda: book_vol(returns, weights), "dense": lambda: dense_vol(returns, weights),
                  "our dense form": lambda: book_vol_dense(returns, weights)}
    pypfopt = peers.pypfopt_shrinkage()
    if pypfopt is not None:
        contenders["PyPortfolioOpt, then w'Sw"] = lambda: float(np.sqrt(weights @ pypfopt(returns) @ weights))
    took = alternate(contenders, rounds, {"ours": effort.pick(1, 5, 20)})
    ours, value, case = took.pop("ours"), float(book_vol(returns, weights)), f"M={m:,}, {BARS} bars"
    notes = {"dense": "the published formula on M x M matrices", "our dense form": "the path that windows with gaps take",
             "PyPortfolioOpt, then w'Sw": "it divides by T - 1, so its intensity differs in the third digit"}
    out = []
    for name, theirs in took.items():
        far, least = abs(float(contenders[name]()) / value - 1.0), 50.0 if name == "dense" else None
        out.append(Row(job="book volatility", case=case, ours_s=ours, peer=name, peer_s=theirs, difference=far,
                       compares="volatility of the book, relative",
                       note=missed(notes[name], theirs / ours, least or 0.0, "our time is reading the window"),
                       **goal_of(theirs / ours, least, far <= 1e-10)))
    return out


def growth_in_m(effort: Effort) -> tuple[str, list[int], dict[int, float]]:
    """Seconds of `book_vol` by number of symbols."""
    sizes = effort.pick([8, 16, 32, 64, 128], [188, 375, 750, 1500, 3000], [188, 375, 750, 1500, 3000])
    cases = {m: book(m) for m in sizes}
    took = alternate({str(m): (lambda c=c: book_vol(*c)) for m, c in cases.items()}, effort.pick(1, 5, 15),
                     {str(m): effort.pick(1, 10, 20) for m in sizes})
    return f"book volatility, {BARS} bars", sizes, {m: took[str(m)] for m in sizes}
