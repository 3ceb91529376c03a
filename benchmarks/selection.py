"""CSCV beside the published method, split by split, and beside libraries that have it; logits equal, memory shown."""
from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import peers
from harness import Effort, Row, absent, alternate, gap, goal_of, missed, peak_mb, seconds
from scipy.stats import rankdata

from pil_research.research.cscv import cscv

JOB = "CSCV"
COMPARES = "logits of the same splits"
GOAL = 2000.0  # times pypbo, per split


def per_split(returns: np.ndarray, blocks: int, which: list[int]) -> np.ndarray:
    """Logits of some splits as the paper describes them: both halves of the matrix put together, every Sharpe ratio anew."""
    parts = np.split(returns, blocks)
    chosen = list(combinations(range(blocks), blocks // 2))
    out = []
    for i in which:
        inside = np.concatenate([parts[b] for b in chosen[i]])
        outside = np.concatenate([parts[b] for b in range(blocks) if b not in chosen[i]])
        earned_in = inside.mean(axis=0) / inside.std(axis=0, ddof=1)
        earned_out = outside.mean(axis=0) / outside.std(axis=0, ddof=1)
        rank_in, rank_out = rankdata(earned_in), rankdata(earned_out)
        omega = rank_out[int(rank_in.argmax())] / (returns.shape[1] + 1)
        out.append(np.log(omega / (1.0 - omega)))
    return np.array(out)


def cscv_job(effort: Effort) -> list[Row]:
    """S = 16, N = 1,000, T = 2,500: 12,870 splits; slow peers are timed on some of them and multiplied up."""
    blocks, n, t = effort.pick((6, 20, 100), (16, 1000, 2500), (16, 1000, 2500))
    sample, rounds = effort.pick(2, 4, 16), effort.pick(1, 2, 5)
    rng = np.random.default_rng(3)
    whole = 0.01 * (rng.standard_normal((t, n)) + 0.5 * rng.standard_normal((t, 1))) + 0.0003 * rng.standard_normal(n)
    returns = whole[t % blocks:]  # whole blocks, so that every peer cuts them alike
    splits = comb(blocks, blocks // 2)
    which = np.linspace(0, splits - 1, sample).astype(int).tolist()
    holdout = peers.holdout_logits()
    contenders = {"ours": lambda: cscv(returns, blocks), "per split": lambda: per_split(returns, blocks, which)}
    if holdout is not None:
        contenders["holdout-backtest"] = lambda: holdout(returns, blocks)
    took = alternate(contenders, rounds)
    ours, logits, memory = took["ours"], cscv(returns, blocks).logits, peak_mb(lambda: cscv(returns, blocks))
    case = f"S={blocks}, N={n:,}, T={t:,}"
    theirs, far = took["per split"] / sample * splits, gap(logits[which], per_split(returns, blocks, which))
    note = f"the peer is our own plain code after the paper, timed on {sample} splits and multiplied up"
    judged = {} if peers.pypbo_logits() is not None else goal_of(theirs / ours, GOAL, far <= 1e-12)
    if judged:
        note = missed(f"{note}; it stands in for pypbo, which is not installed", theirs / ours, GOAL, "it copies less than pypbo")
    out = [Row(job=JOB, case=case, ours_s=ours, peer="published, per split", peer_s=theirs, difference=far,
               compares=COMPARES, memory_mb=memory, note=note, **judged)]
    out += _holdout(case, ours, took.get("holdout-backtest"), logits, memory, returns, blocks)
    return out + _loops(case, ours, returns, splits, effort.pick(4, 6, 8))


def _holdout(case: str, ours: float, theirs: float | None, logits: np.ndarray, memory: float, returns: np.ndarray,
             blocks: int) -> list[Row]:
    """The strongest peer, run whole: time and memory both count."""
    goal, run = ">= 5x, <= 0.1 memory", peers.holdout_logits()
    if run is None or theirs is None:
        return [absent(JOB, case, ours, "holdout-backtest", goal)]
    peak, far = peak_mb(lambda: run(returns, blocks)), gap(logits, run(returns, blocks))
    met = bool(theirs >= 5.0 * ours and memory <= 0.1 * peak and far <= 1e-12)
    note = "both run whole"
    if not met:
        note = missed(note, theirs / ours, 5.0, "it sums blocks by matrix products as we do")
        note += f"; {memory / peak:.3f} of its memory"
    return [Row(job=JOB, case=case, ours_s=ours, peer="holdout-backtest", peer_s=theirs, difference=far, compares=COMPARES,
                memory_mb=memory, peer_memory_mb=peak, goal=goal, met=met, note=note)]


def _loops(case: str, ours: float, returns: np.ndarray, splits: int, most: int) -> list[Row]:
    """Libraries that loop over splits: run on fewer blocks, whose halves are as long, and multiplied up.

    pypbo keeps both halves of every split, and fresh memory is part of what a split costs it; so it gets as many splits as fit.
    """
    out = []
    for name, run, few in (("purgedcv", peers.purgedcv_logits(), 4), ("pypbo", peers.pypbo_logits(), most)):
        if run is None:
            out.append(absent(JOB, case, ours, name))
            continue
        rows = returns[len(returns) % few:]
        same = cscv(rows, few).logits
        theirs = seconds(lambda run=run, rows=rows, few=few: run(rows, few)) / len(same) * splits
        far = gap(np.sort(same), np.sort(run(rows, few)))
        note = f"timed on the {len(same)} splits of {few} blocks, whose halves are as long, and multiplied up"
        judged = goal_of(theirs / ours, GOAL, far <= 1e-12) if name == "pypbo" else {}
        if judged:
            note = missed(note, theirs / ours, GOAL, "memory was quick to come by on this machine")
        out.append(Row(job=JOB, case=case, ours_s=ours, peer=name, peer_s=theirs, compares=COMPARES, difference=far, note=note,
                       **judged))
    return out


def growth_in_n(effort: Effort) -> tuple[str, list[int], dict[int, float]]:
    """Seconds of CSCV by number of configurations."""
    blocks, t = effort.pick((4, 100), (10, 1000), (12, 2500))
    sizes = effort.pick([4, 8, 16, 32, 64], [100, 200, 400, 800, 1600], [200, 400, 800, 1600, 3200])
    days = pd.bdate_range("2010-01-04", periods=t)
    x = pd.DataFrame(0.01 * np.random.default_rng(4).standard_normal((t, sizes[-1])), index=days)
    frames = {n: x.iloc[:, :n].copy() for n in sizes}
    took = alternate({str(n): (lambda f=f: cscv(f, blocks)) for n, f in frames.items()}, effort.pick(1, 3, 7))
    return f"CSCV, S={blocks}, T={t:,}", sizes, {n: took[str(n)] for n in sizes}
