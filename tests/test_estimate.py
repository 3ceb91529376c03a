"""Estimates row by row and block by block: a history that grows, observation codes, step ICs that keep their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.config import PILConfig
from pil_research.estimate import CovarianceSet, EstimateSettings, Estimator, History, estimate, precompute
from pil_research.estimators.skill import Publications, RowMemory, step_ics


def drawn(seed: int, t: int = 90, k: int = 3, m: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns with missing quotes, targets with silent days and given sleeve returns, some of each; and dates."""
    rng = np.random.default_rng(seed)
    returns, targets = 0.01 * rng.standard_normal((t, m)), rng.standard_normal((t, k, m))
    returns[rng.random((t, m)) < 0.1] = np.nan
    returns[:4, 0] = np.nan
    targets[rng.random((t, k)) < 0.3] = np.nan
    targets[50:60] = targets[50]
    given_ = np.where(rng.random((t, k)) < 0.05, 0.001, np.nan)
    return returns, targets, np.datetime64("2020-01-01") + np.arange(t), given_


NAMES, IDS = [f"S{i}" for i in range(5)], ["a", "b", "c"]


@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(1, 88))
@settings(max_examples=25, deadline=None)
def test_a_history_in_blocks_is_the_history_in_one(seed: int, cut: int) -> None:
    returns, targets, dates, given_ = drawn(seed)
    whole = History(NAMES, IDS, returns, targets, dates, given_)
    grown = History(NAMES, IDS, returns[:cut], targets[:cut], dates[:cut], given_[:cut])
    for i in range(cut, len(dates)):
        grown.append(dates[i], returns[i], targets[i], given_[i])
    for name in ("gap", "scaled", "unit", "flat", "published", "known", "issue", "heard"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(grown, name), name)
    assert [whole.digest_at(i) for i in (0, cut, 89)] == [grown.digest_at(i) for i in (0, cut, 89)]
    unit, issue = whole.unit, whole.issue
    assert (unit == unit[issue]).all() and all((unit[i] != unit[i - 1]).any() for i in issue[issue > 0])


def test_the_digest_may_be_asked_for_at_any_time() -> None:
    returns, targets, dates, _ = drawn(1)
    early, late = (History(NAMES, IDS, returns[:60], targets[:60], dates[:60]) for _ in range(2))
    first = early.digest
    for h in (early, late):
        h.append(dates[60], returns[60], targets[60])
    assert late.digest_at(59) == first and late.digest == early.digest != first


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_of_a_study_are_the_rows_of_a_session(seed: int) -> None:
    """Observation codes, ICs and skill of a block equal those of single rows, frozen feeds and silent days included."""
    returns, targets, dates, given_ = drawn(seed, t=260)
    returns[200:207, :3] = 0.0
    given_[230:240, 1] = 0.0007
    config = PILConfig().replace(**{"sleeves.min_observations": 30, "risk.min_observations": 10, "tilt.min_steps": 2})
    history = History(NAMES, IDS, returns, targets, dates, given_)
    est = Estimator(history, EstimateSettings.of(config), [CovarianceSet.of(config)])
    grown = History(NAMES, IDS, returns[:100], targets[:100], dates[:100], given_[:100])
    live = Estimator(grown, est.settings, est.sets)
    singles = []
    for row in range(100, 260):
        grown.append(dates[row], returns[row], targets[row], given_[row])
        live.update()
        singles.append(estimate(live, row))
    precompute(est, 100, np.ones((160, 3), dtype=bool))
    for one in singles:
        many = estimate(est, one.row)
        np.testing.assert_array_equal(one.observed, many.observed)
        np.testing.assert_array_equal(one.reason, many.reason)
        np.testing.assert_allclose(one.skill_z, many.skill_z, rtol=0, atol=1e-12)
        np.testing.assert_allclose(one.vol, many.vol, rtol=1e-13)
    np.testing.assert_array_equal(live.rows("ic"), est.rows("ic"))
    assert len(np.unique([s.observed for s in singles])) > 2


@pytest.mark.parametrize("ties", [False, True])
def test_a_window_that_moves_on_is_a_window_put_in_order_anew(ties: bool) -> None:
    """Enough symbols that a live session moves one bar instead of sorting."""
    rng, t, m = np.random.default_rng(3), 40, 500
    targets = np.repeat(rng.standard_normal((t // 5, 2, m)), 5, axis=0)
    returns, sd = rng.standard_normal((t, m)), np.full((t, m), 1.0)
    returns[rng.random((t, m)) < 0.02] = np.nan
    if ties:
        targets, returns = targets.round(1), returns.round(1)
    issue, memory = np.repeat(np.arange(0, t, 5), 5), RowMemory()
    for end in range(21, t):
        rows = slice(end - 21, end + 1)
        block = (targets[rows], returns[rows], sd[rows], np.array([21]), 21)
        kept = step_ics(*block, Publications(issue[rows], end - 21, memory))
        anew = step_ics(*block, Publications(issue[rows], end - 21, RowMemory()))
        np.testing.assert_array_equal(kept, anew)
    assert memory.bars == (t - 22, t - 1)
