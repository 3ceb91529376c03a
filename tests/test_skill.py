"""Skill: ranks with ties, the step IC by hand, lags, the standard error, no evidence."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, rankdata, spearmanr

from pil_research.estimators.skill import all_step_ics, average_ranks, skill_from_steps, skill_scores, step_ic
from pil_research.types import InputError

# forecasts and outcomes with ties on both sides; scipy.stats.spearmanr gives 0.8072289156626505
FORECAST = [0.5, 0.1, 0.1, -0.2, 0.9, 0.3, -0.4, 0.0]
REALISED = [0.01, 0.02, -0.01, -0.03, 0.04, 0.0, -0.02, 0.0]


def test_published_ranks():
    np.testing.assert_array_equal(average_ranks(FORECAST), [7.0, 4.5, 4.5, 2.0, 8.0, 6.0, 1.0, 3.0])
    np.testing.assert_array_equal(average_ranks(REALISED), [6.0, 7.0, 3.0, 1.0, 8.0, 4.5, 2.0, 4.5])
    shifted = np.array(FORECAST) + 1.0  # no zero weight
    assert step_ic([[shifted]], [REALISED])[0] == pytest.approx(0.8072289156626505, abs=1e-12)


def test_shared_case():
    folder = os.environ.get("PIL_ORACLES")
    if not folder:
        pytest.skip("PIL_ORACLES is unset: no folder of published numbers to check against")
    case = next(c for c in json.loads((Path(folder) / "metrics.json").read_text())["cases"] if c["id"] == "rank-ic")
    weights = np.array(case["input"]["forecast"]) + 5.0
    assert step_ic([[weights]], [case["input"]["realised"]])[0] == pytest.approx(case["expected"]["spearman"], abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1), digits=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_ranks_are_scipys(seed, digits):
    x = np.random.default_rng(seed).normal(size=(3, 40)).round(digits)
    np.testing.assert_array_equal(average_ranks(x), rankdata(x, axis=1))


def by_hand(w, r):
    a, b = [], []
    for j in range(len(r)):
        gross = np.abs(w[j]).sum()
        for i in range(r.shape[1]):
            if w[j, i] != 0 and np.isfinite(r[j, i]):
                a.append(round(w[j, i] / gross, 12))
                b.append(r[j, i])
    names = ((w != 0) & np.isfinite(r)).any(axis=0).sum()
    return spearmanr(a, b).statistic if names >= 3 and len(set(a)) > 1 and len(set(b)) > 1 else np.nan


@given(seed=st.integers(0, 2**32 - 1), digits=st.sampled_from([0, 1, 6]), rdigits=st.sampled_from([1, 6]))
@settings(max_examples=40, deadline=None)
def test_step_by_hand(seed, digits, rdigits):
    rng = np.random.default_rng(seed)
    w, r = rng.normal(size=(21, 4, 5)).round(digits), rng.normal(size=(21, 5)).round(rdigits)
    w[:, 0, 2:] = 0.0  # two names only
    w[:, 1] = 1.0  # constant
    r[rng.random(r.shape) < 0.1] = np.nan
    ours = step_ic(w, r)
    expected = [by_hand(w[:, k], r) for k in range(4)]
    np.testing.assert_allclose(ours, expected, atol=1e-13)
    assert np.isnan(ours[:2]).all()


@pytest.mark.parametrize("tied", [(), (0,), (1, 4), (0, 1, 2, 3, 4)])
def test_many_symbols_with_ties_in_some_sleeves(tied):
    """Large windows are summed some sleeves at a time, those with equal weights by runs."""
    rng = np.random.default_rng(5)
    w, r = rng.normal(size=(6, 5, 2500)), rng.normal(size=(6, 2500))
    for k in tied:
        w[:, k, 7:7 + 3 * (k + 1)] = w[:, k, :1]
    np.testing.assert_allclose(step_ic(w, r), [by_hand(w[:, k], r) for k in range(5)], atol=1e-13)
    w[2, :, 100:300], r[:, 5] = 0.0, np.nan
    np.testing.assert_allclose(step_ic(w, r), [by_hand(w[:, k], r) for k in range(5)], atol=1e-13)


def test_scale_does_not_matter_and_ties_survive():
    rng = np.random.default_rng(1)
    w, r = rng.normal(size=(21, 2, 8)).round(1), rng.normal(size=(21, 8))
    scale = rng.uniform(0.1, 9.0, (21, 2, 1))
    np.testing.assert_array_equal(step_ic(w * scale, r), step_ic(w, r))
    np.testing.assert_allclose(step_ic(-w, r), -step_ic(w, r), atol=1e-13)


def test_perfect_and_reversed():
    r = np.random.default_rng(2).normal(size=(1, 9))
    w = np.stack([np.argsort(np.argsort(r[0])) - 20.0, 20.0 - np.argsort(np.argsort(r[0]))])[None]
    np.testing.assert_allclose(step_ic(w, r), [1.0, -1.0], atol=1e-14)


def history(seed, t=120, k=3, m=6):
    rng = np.random.default_rng(seed)
    w, r, sd = rng.normal(size=(t, k, m)).round(1), rng.normal(size=(t, m)), rng.uniform(0.5, 2.0, (t, m))
    r[rng.random(r.shape) < 0.05] = np.nan
    sd[rng.random(r.shape) < 0.05] = np.nan
    w[10:14, 0] = np.nan
    return w, r, sd


def test_every_row_is_one_step():
    w, r, sd = history(3)
    ics = all_step_ics(w, r, sd)
    assert np.isnan(ics[:21]).all()
    for t in range(21, 120):
        np.testing.assert_array_equal(ics[t], step_ic(w[t - 21:t], r[t - 20:t + 1] / sd[t - 21:t]))
    some = all_step_ics(w, r, sd, ends=[5, 40, 90])
    np.testing.assert_array_equal(some[[40, 90]], ics[[40, 90]])
    assert np.isnan(np.delete(some, [40, 90], axis=0)).all()


def test_row_t_reads_nothing_after_t():
    w, r, sd = history(4)
    other = [a.copy() for a in (w, r, sd)]
    other[0][70:], other[1][71:], other[2][70:] = 1.0, np.nan, 9.0
    np.testing.assert_array_equal(all_step_ics(w, r, sd)[:71], all_step_ics(*other)[:71])


def test_score_by_hand():
    ics = np.array([0.1, -0.2, 0.05, np.nan, 0.3, 0.12, 0.02, 0.2])
    age = np.arange(7, -1, -1) * 21
    w = np.where(np.isnan(ics), 0.0, 0.5 ** (age / 63))
    w /= w.sum()
    mean = np.nansum(w * ics)
    se = np.sqrt(np.nansum(w * (ics - mean) ** 2)) * np.sqrt((w**2).sum())
    z, skill = skill_from_steps(ics)
    assert z == pytest.approx(mean / se, rel=1e-12) and skill == pytest.approx(norm.cdf(mean / se), rel=1e-12)


def test_no_evidence():
    for ics in ([0.1] * 5, [np.nan] * 24, [0.1] * 10, [0.2, np.nan] * 5):
        z, skill = skill_from_steps(ics)
        assert z == 0.0 and skill == 0.5
    z, _ = skill_from_steps(np.array([[0.1, 0.2, 0.1, 0.2, 0.1, 0.3], [np.nan] * 6]))
    assert z[0] > 0.0 and z[1] == 0.0


def test_scores_read_steps_back_from_yesterday():
    ics = np.random.default_rng(5).normal(size=(700, 2))
    rows = np.array([0, 60, 200, 699])
    z, skill = skill_scores(ics, rows)
    for i, t in enumerate(rows):
        back = [t - 1 - 21 * n for n in range(23, -1, -1)]
        steps = np.array([ics[b] if b >= 0 else [np.nan] * 2 for b in back])
        expected = skill_from_steps(steps.T)
        np.testing.assert_allclose(z[i], expected[0], rtol=1e-13)
        np.testing.assert_allclose(skill[i], expected[1], rtol=1e-13)
    changed = ics.copy()
    changed[200:] = 9.0
    np.testing.assert_array_equal(skill_scores(changed, rows)[0][:3], z[:3])


def test_skill_is_found():
    rng = np.random.default_rng(6)
    r = rng.normal(size=(800, 20))
    ahead = np.vstack([r[1:], np.zeros((1, 20))])
    w = np.stack([0.1 * ahead + rng.normal(size=r.shape), rng.normal(size=r.shape)], axis=1)
    z, _ = skill_scores(all_step_ics(w, r, np.ones_like(r)), [799])
    assert z[0, 0] > 4.0 and abs(z[0, 1]) < 3.5


@pytest.mark.parametrize("call", [
    lambda: all_step_ics(np.ones((30, 2, 3)), np.ones((30, 2)), np.ones((30, 2))),
    lambda: step_ic(np.ones((21, 3)), np.ones((21, 3))),
    lambda: step_ic(np.full((21, 2, 3), np.inf), np.ones((21, 3)))])
def test_refusals(call):
    with pytest.raises(InputError, match="must be finite"):
        call()
