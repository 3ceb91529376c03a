"""Covariance: published numbers, independent re-implementations, gaps, parity of batch and single, repair, factors."""

import json
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf

from pil_research.estimators.covariance import (
    factor_covariance,
    ledoit_wolf,
    nearest_correlation,
    nearest_psd,
    pairwise_covariance,
    rolling_covariance,
    rolling_shrunk_covariance,
    shrunk_covariance,
)
from pil_research.estimators.ewma import ewma_weights
from pil_research.estimators.factor import factor_model
from pil_research.estimators.psd import repair_psd
from pil_research.types import InputError

TARGETS = ("constant_correlation", "identity", "single_factor", "none")


def panel(seed, t, k, gaps=0.0):
    rng = np.random.default_rng(seed)
    x = 0.01 * rng.normal(size=(t, k)) * rng.uniform(0.5, 2.0, k) + 0.006 * rng.normal(size=(t, 1))
    x += 0.01 * rng.standard_t(4, size=(t, k))
    x[rng.random(x.shape) < gaps] = np.nan
    return x


def oracle(area):
    folder = os.environ.get("PIL_ORACLES")
    if not folder:
        pytest.skip("PIL_ORACLES is unset: no folder of published numbers to check against")
    return {c["id"]: c for c in json.loads((Path(folder) / f"{area}.json").read_text())["cases"]}


def direct_shrinkage(x, h, min_overlap=60):
    """The estimator with loops over pairs, straight from the formulas."""
    t, k = x.shape
    w, m = ewma_weights(t, h), ~np.isnan(x)
    own = [w[m[:, i]] / w[m[:, i]].sum() for i in range(k)]
    s = np.array([np.sqrt(own[i] @ (x[m[:, i], i] - own[i] @ x[m[:, i], i]) ** 2) for i in range(k)])
    corr, pairs, kish = np.full((k, k), np.nan), {}, 0.0
    for i in range(k):
        for j in range(k):
            o = m[:, i] & m[:, j]
            if i != j and o.sum() < min_overlap:
                continue
            wo = w[o] / w[o].sum()
            a, b = x[o, i] - wo @ x[o, i], x[o, j] - wo @ x[o, j]
            a, b = a * s[i] / np.sqrt(wo @ a**2), b * s[j] / np.sqrt(wo @ b**2)
            pairs[i, j] = wo, a, b
            if i != j:
                corr[i, j], kish = wo @ (a * b) / s[i] / s[j], max(kish, wo @ wo)
    r = np.nanmean(corr)
    corr = np.where(np.isnan(corr), r, corr)
    np.fill_diagonal(corr, 1.0)
    sample, target = corr * np.outer(s, s), r * np.outer(s, s)
    np.fill_diagonal(target, s**2)
    pi = rho = 0.0
    for (i, j), (wo, a, b) in pairs.items():
        p = wo @ (a * b - sample[i, j]) ** 2
        pi += p
        first = s[j] / s[i] * (wo @ ((a * a - s[i] ** 2) * (a * b - sample[i, j])))
        second = s[i] / s[j] * (wo @ ((b * b - s[j] ** 2) * (a * b - sample[i, j])))
        rho += p if i == j else 0.5 * r * (first + second)
    delta = np.clip((pi - rho) / ((target - sample) ** 2).sum() * kish, 0.0, 1.0)
    return delta * target + (1 - delta) * sample, delta


def cov_market(x):
    """Ledoit and Wolf's covMarket, matrix by matrix."""
    t, n = x.shape
    x = x - x.mean(0)
    market = x.mean(1)
    sample = np.c_[x, market].T @ np.c_[x, market] / t
    c, v, sample = sample[:n, n], sample[n, n], sample[:n, :n]
    prior = np.outer(c, c) / v
    prior[np.diag_indices(n)] = np.diag(sample)
    y, z = x**2, x * market[:, None]
    p = (y.T @ y).sum() / t - (sample**2).sum()
    v1, v3 = y.T @ z / t - c[:, None] * sample, z.T @ z / t - v * sample
    r = (y**2).sum() / t - (np.diag(sample) ** 2).sum()
    r += 2 * ((v1 * c).sum() - (np.diag(v1) * c).sum()) / v
    r -= ((v3 * np.outer(c, c)).sum() - (np.diag(v3) * c**2).sum()) / v**2
    delta = np.clip((p - r) / ((sample - prior) ** 2).sum() / t, 0.0, 1.0)
    return delta * prior + (1 - delta) * sample, delta


# --- published numbers ------------------------------------------------------------------------------------------


def test_shared_ledoit_wolf_cases():
    cases = oracle("ledoit_wolf")
    x = np.array(cases["lw-cc-60x5"]["input"]["X"])
    for case, h, key in (("lw-cc-60x5", None, "sigma_divT"), ("lw-ewma-60x5", 20, "sigma")):
        expected = cases[case]["expected"]
        est = shrunk_covariance(x, half_life=h)
        assert est.shrinkage_intensity == pytest.approx(expected["delta"], abs=1e-9)
        assert est.mean_correlation == pytest.approx(expected["rbar"], abs=1e-9)
        np.testing.assert_allclose(est.cov, expected[key], rtol=1e-9)
    two = np.array(cases["lw-k2-degenerate"]["input"]["X"])
    np.testing.assert_allclose(ledoit_wolf(two)[0], np.cov(two.T, ddof=0), atol=1e-15)


def test_shared_psd_cases():
    cases = oracle("psd")
    case = cases["higham-3"]
    nearest = nearest_correlation(case["input"]["A"])
    np.testing.assert_allclose(nearest, case["expected"]["nearest"], atol=1e-8)
    case = cases["pairwise-cov-gaps"]
    x = np.array([[np.nan if v is None else v for v in row] for row in case["input"]["X"]])
    cov, overlap = pairwise_covariance(x, variance="overlap", ddof=1, min_overlap=2)
    np.testing.assert_allclose(cov, case["expected"]["pairwise_cov_ddof1"], rtol=1e-10)
    np.testing.assert_array_equal(overlap, case["expected"]["overlap"])


def test_higham_example():
    # Higham (2002), IMA J. Numer. Anal. 22: 0.7607, 0.1573 at distance 0.5278
    a = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    near = nearest_correlation(a)
    assert near[0, 1] == pytest.approx(0.7606898534022837, abs=1e-8)
    assert near[0, 2] == pytest.approx(0.15729810613837608, abs=1e-8)
    assert np.linalg.norm(near - a) == pytest.approx(0.5277904635818285, abs=1e-8)


# --- independent implementations --------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [None, 20, 63])
@pytest.mark.parametrize(("t", "k"), [(60, 5), (252, 8), (40, 12)])
def test_constant_correlation_without_gaps(t, k, h):
    x = panel(t, t, k)
    cov, delta = direct_shrinkage(x, h, min_overlap=2)
    ours, d = ledoit_wolf(x, half_life=h)
    np.testing.assert_allclose(ours, cov, rtol=1e-11)
    assert d == pytest.approx(delta, abs=1e-11)


@pytest.mark.parametrize("seed", range(4))
def test_constant_correlation_with_gaps(seed):
    x = panel(seed, 252, 6, 0.08) * np.array([1, 1, -1, 1, 3, 1])
    x[:170, 2], x[:205, 4], x[-20:, 5] = np.nan, np.nan, np.nan  # pairs with 4 are below 60 bars
    cov, delta = direct_shrinkage(x, 63)
    est = shrunk_covariance(x, half_life=63)
    assert est.shrinkage_intensity == pytest.approx(delta, abs=1e-11)
    if est.repair == 0.0:
        np.testing.assert_allclose(est.cov, cov, rtol=1e-10)


def test_identity_is_sklearns():
    x = panel(3, 90, 7)
    cov, delta = sklearn_ledoit_wolf(x)
    ours, d = ledoit_wolf(x, target="identity")
    np.testing.assert_allclose(ours, cov, rtol=1e-10, atol=1e-18)
    assert d == pytest.approx(delta, abs=1e-12)


def test_single_factor_is_cov_market():
    x = panel(4, 90, 7)
    cov, delta = cov_market(x)
    ours, d = ledoit_wolf(x, target="single_factor")
    np.testing.assert_allclose(ours, cov, rtol=1e-10)
    assert d == pytest.approx(delta, abs=1e-11) and 0.0 < delta < 1.0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("h", [None, 30])
def test_gap_path_without_gaps_is_the_other_path(target, h):
    x = panel(5, 130, 6)
    here = shrunk_covariance(x, target=target, half_life=h)
    more = shrunk_covariance(np.concatenate([np.full((1, 6), np.nan), x]), target=target, half_life=h)
    np.testing.assert_allclose(more.cov, here.cov, rtol=1e-10)
    assert more.shrinkage_intensity == pytest.approx(float(here.shrinkage_intensity), abs=1e-10)
    assert more.effective_bars == pytest.approx(float(here.effective_bars), rel=1e-10)


def test_pairwise_correlations_are_pandas():
    x = panel(6, 200, 5, 0.2)
    cov, overlap = pairwise_covariance(x)
    sd = np.sqrt(np.diag(cov))
    np.testing.assert_allclose(cov / np.outer(sd, sd), pd.DataFrame(x).corr(), atol=1e-12)
    np.testing.assert_allclose(sd, np.nanstd(x, axis=0), rtol=1e-12)
    here = (~np.isnan(x)).astype(int)
    np.testing.assert_array_equal(overlap, here.T @ here)


# --- properties -------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), gaps=st.sampled_from([0.0, 0.05, 0.4]), target=st.sampled_from(TARGETS),
       k=st.integers(1, 9), t=st.integers(3, 140), h=st.sampled_from([None, 10.0, 63.0]))
@settings(max_examples=120, deadline=None)
def test_always_a_covariance(seed, gaps, target, k, t, h):
    x = panel(seed, t, k, gaps)
    est = shrunk_covariance(x, target=target, half_life=h)
    live = (~np.isnan(x)).sum(axis=0) >= 2
    inner = est.cov[np.ix_(live, live)]
    assert np.isnan(est.cov[~live]).all() and np.isnan(est.cov[:, ~live]).all()
    assert np.isfinite(inner).all()
    np.testing.assert_allclose(inner, inner.T, rtol=1e-12, atol=1e-22)
    assert 0.0 <= est.shrinkage_intensity <= 1.0 and -1.0 <= est.mean_correlation <= 1.0
    if inner.size:
        sd = np.sqrt(np.diag(inner))
        assert np.linalg.eigvalsh(inner)[0] >= -1e-11 * max(inner.max(), 1e-30)
        assert (np.abs(inner) <= np.outer(sd, sd) * (1 + 1e-9) + 1e-22).all()


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3), gaps=st.sampled_from([0.0, 0.1]))
@settings(max_examples=40, deadline=None)
def test_units_and_order_do_not_matter(seed, scale, gaps):
    x = panel(seed, 100, 5, gaps)
    cov, delta = ledoit_wolf(x, half_life=40)
    order = np.random.default_rng(seed).permutation(5)
    scaled, d1 = ledoit_wolf(x * scale, half_life=40)
    moved, d2 = ledoit_wolf(x[:, order], half_life=40)
    np.testing.assert_allclose(scaled, cov * scale**2, rtol=1e-9)
    np.testing.assert_allclose(moved, cov[np.ix_(order, order)], rtol=1e-9, atol=1e-18)
    assert d1 == pytest.approx(float(delta), abs=1e-9) and d2 == pytest.approx(float(delta), abs=1e-9)


@pytest.mark.parametrize("gaps", [0.0, 0.05])
@pytest.mark.parametrize("target", TARGETS)
def test_batch_is_single(gaps, target):
    x = np.stack([panel(s, 120, 6, gaps if s % 2 else 0.0) for s in range(7)])
    cov, delta = ledoit_wolf(x, half_life=63, target=target)
    for i, window in enumerate(x):
        one, d = ledoit_wolf(window, half_life=63, target=target)
        np.testing.assert_allclose(cov[i], one, rtol=1e-14)
        assert delta[i] == pytest.approx(float(d), abs=1e-14)


@pytest.mark.parametrize("gaps", [0.0, 0.03])
def test_rolling_is_single_to_the_last_bit(gaps):
    x = panel(9, 400, 5, gaps)
    x[:300, 4] = np.nan
    roll = rolling_covariance(x, 120, 40)
    assert roll.shape == (281, 5, 5)
    for row in (0, 17, 150, 200, 280):
        np.testing.assert_array_equal(roll[row], ledoit_wolf(x[row:row + 120], half_life=40)[0])
    ends = rolling_covariance(x, 120, 40, ends=[399, 119, 250])
    np.testing.assert_array_equal(ends, roll[[280, 0, 131]])


def test_rolling_before_a_full_window():
    x = panel(10, 100, 4)
    roll = rolling_covariance(x, 80, 40, ends=[49])
    np.testing.assert_allclose(roll[0], ledoit_wolf(x[:50], half_life=40)[0], rtol=1e-9)


@pytest.mark.parametrize("h", [None, 63])
@pytest.mark.parametrize("target", TARGETS)
def test_expanding_is_single(target, h):
    x = panel(11, 700, 4, 0.02)
    x[:200, 3] = np.nan
    roll = rolling_shrunk_covariance(x, None, h, target)
    assert roll.cov.shape == (700, 4, 4)
    for row in (60, 300, 511, 512, 699):
        one = shrunk_covariance(x[:row + 1], target=target, half_life=h)
        np.testing.assert_allclose(roll.cov[row], one.cov, rtol=1e-10, atol=1e-16)
        assert roll.shrinkage_intensity[row] == pytest.approx(float(one.shrinkage_intensity), abs=1e-10)


@pytest.mark.parametrize("window", [60, None])
def test_future_rows_change_nothing(window):
    x = panel(12, 300, 4, 0.02)
    other = x.copy()
    other[200:] = np.where(np.random.default_rng(0).random((100, 4)) < 0.3, np.nan, 7.0 * other[200:] + 1.0)
    ends = np.arange(59, 200)
    both = [rolling_covariance(y, window, 30, ends=[*ends, *range(200, 300)])[:len(ends)] for y in (x, other)]
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("gaps", [0.0, 0.05])
def test_an_empty_column_changes_nothing(gaps):
    x = panel(13, 120, 4, gaps)
    wide = np.insert(x, 2, np.nan, axis=1)
    keep = [0, 1, 3, 4]
    np.testing.assert_allclose(ledoit_wolf(wide)[0][np.ix_(keep, keep)], ledoit_wolf(x)[0], rtol=1e-13)
    other = np.insert(x, 2, np.nan, axis=1)
    other[5, 2] = 0.3  # one observation is no data either
    np.testing.assert_array_equal(ledoit_wolf(other)[0], ledoit_wolf(wide)[0])


def test_two_series_are_not_shrunk():
    for gaps in (0.0, 0.05):
        x = panel(14, 200, 2, gaps)
        cov, delta = ledoit_wolf(x, half_life=63)
        assert delta == 0.0
        np.testing.assert_array_equal(cov, ledoit_wolf(x, half_life=63, target="none")[0])


def test_one_series():
    x = panel(15, 50, 1)
    cov, delta = ledoit_wolf(x)
    assert delta == 0.0 and cov[0, 0] == pytest.approx(x.var())


@pytest.mark.parametrize("gaps", [0.0, 0.05])
@pytest.mark.parametrize("target", TARGETS)
def test_a_constant_series_has_no_variance(gaps, target):
    x = panel(16, 120, 4, gaps)
    x[:, 1] = np.where(np.isnan(x[:, 1]), np.nan, 0.0123)
    cov, delta = ledoit_wolf(x, target=target)
    assert np.isfinite(cov).all() and 0.0 <= delta <= 1.0
    if target != "identity":
        assert (cov[1] == 0.0).all()


def test_intensity_scale():
    x = panel(17, 100, 6) @ np.random.default_rng(17).normal(size=(6, 6))
    d = float(ledoit_wolf(x)[1])
    assert 0.01 < d < 0.6
    assert ledoit_wolf(x, delta_scale=0.5)[1] == pytest.approx(0.5 * d)
    assert ledoit_wolf(x, delta_scale=100.0)[1] == 1.0
    np.testing.assert_array_equal(ledoit_wolf(x, delta_scale=0.0)[0], ledoit_wolf(x, target="none")[0])


def test_annualise():
    x = panel(18, 100, 3)
    np.testing.assert_array_equal(ledoit_wolf(x, annualise=True)[0], 252.0 * ledoit_wolf(x)[0])
    np.testing.assert_array_equal(rolling_covariance(x, 50, annualise=12)[-1], 12.0 * ledoit_wolf(x[-50:])[0])


def test_thin_pair_takes_the_mean_correlation():
    x = panel(19, 252, 4)
    x[:200, 3] = np.nan
    est = shrunk_covariance(x, target="none")
    sd = np.sqrt(np.diag(est.cov))
    corr = est.cov / np.outer(sd, sd)
    others = corr[:3, :3][np.triu_indices(3, 1)]
    assert est.repair == 0.0
    np.testing.assert_allclose(corr[3, :3], others.mean(), rtol=1e-12)


# --- repair -----------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_repair_keeps_the_diagonal(seed, k):
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, (k, k))
    sd = rng.uniform(1e-4, 10.0, k)
    a = (a + a.T) / 2
    np.fill_diagonal(a, 1.0)
    cov = a * np.outer(sd, sd)
    fixed, size = repair_psd(cov)
    np.testing.assert_array_equal(np.diag(fixed), np.diag(cov))
    assert np.linalg.eigvalsh(fixed / np.outer(sd, sd))[0] >= -1e-13
    assert (size > 0.0) == (np.linalg.eigvalsh(a)[0] < -1e-12)
    np.testing.assert_array_equal(nearest_psd(fixed), fixed)


def test_repair_leaves_good_matrices_alone():
    x = panel(20, 30, 50)
    singular = np.cov(x.T, ddof=0)
    fixed, size = repair_psd(np.stack([singular, np.eye(50)]))
    np.testing.assert_array_equal(fixed[0], singular)
    assert (size == 0.0).all()


def test_repair_with_an_empty_series():
    bad = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    wide = np.insert(np.insert(bad, 1, np.nan, axis=0), 1, np.nan, axis=1)
    fixed = nearest_psd(wide)
    keep = [0, 2, 3]
    assert np.isnan(fixed[1]).all()
    np.testing.assert_allclose(fixed[np.ix_(keep, keep)], nearest_psd(bad), atol=1e-14)


@pytest.mark.parametrize(("cov", "code"), [
    (np.zeros((2, 3)), "SHAPE"), (np.zeros(3), "SHAPE"), (np.zeros((0, 0)), "SHAPE"), (1.0, "SHAPE"),
    (np.full((2, 2), np.nan), "NON_FINITE"), ([[1.0, np.nan], [np.nan, 1.0]], "NON_FINITE"),
    ([[1.0, np.inf], [np.inf, 1.0]], "NON_FINITE"), ([[np.inf, 0.0], [0.0, 1.0]], "NON_FINITE"),
    ([[np.nan, 0.5], [0.5, 1.0]], "NON_FINITE"),
    ([[1.0, 0.0], [0.0, -1.0]], "NON_POSITIVE_VARIANCE"),
    ([[1.0, 0.5], [0.1, 1.0]], "NOT_SYMMETRIC"), ([[0.0, 0.5], [0.1, 1.0]], "NOT_SYMMETRIC"),
    (1e-8 * np.array([[1.0, 0.5], [0.1, 1.0]]), "NOT_SYMMETRIC"),
    (np.stack([np.eye(2), [[1.0, 0.5], [0.1, 1.0]]]), "NOT_SYMMETRIC")])
@pytest.mark.parametrize("repair", [nearest_psd, repair_psd])
def test_what_is_no_covariance_has_no_near_one(repair, cov, code):
    with pytest.raises(InputError, match="cov must") as err:
        repair(cov)
    assert err.value.code == code and err.value.field == "cov"
    if np.ndim(cov) == 3:
        assert err.value.subject == "row 1"


@pytest.mark.parametrize(("cov", "near"), [
    ([[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]), ([[0.0, 0.5], [0.5, 1.0]], [[0.0, 0.0], [0.0, 1.0]]),
    ([[1.0, 2.0], [2.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]), ([[0.0]], [[0.0]]),
    ([[2.0, 0.1, 0.3], [0.1, 0.0, 0.2], [0.3, 0.2, 1.0]], [[2.0, 0.0, 0.3], [0.0, 0.0, 0.0], [0.3, 0.0, 1.0]])])
def test_a_series_without_variance_has_no_covariance(cov, near):
    got = nearest_psd(cov)
    np.testing.assert_allclose(got, near, atol=1e-11)
    assert np.array_equal(got, got.T) and np.linalg.eigvalsh(got)[0] >= -1e-12
    assert np.array_equal(nearest_psd(got), got)


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_repair_is_exactly_symmetric(seed, k):
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, (3, k, k))
    a = (a + a.swapaxes(1, 2)) / 2
    a[:, np.arange(k), np.arange(k)] = rng.uniform(0.1, 1.0, k)
    a[0, 0] = a[0, :, 0] = 0.0
    b = rng.standard_normal((k, k + 2))
    a[2] = (b @ b.T + (b @ b.T).T) / 2
    fixed = nearest_psd(a)
    assert np.array_equal(fixed, fixed.swapaxes(1, 2)) and np.array_equal(fixed[2], a[2])
    lopsided = a[2] * (1.0 + 1e-15 * rng.standard_normal((k, k)))  # rounding only
    assert np.array_equal(nearest_psd(lopsided), nearest_psd(lopsided).T)
    np.testing.assert_allclose(nearest_psd(lopsided), a[2], rtol=1e-13)


@pytest.mark.parametrize(("a", "code"), [
    (np.zeros((2, 3)), "SHAPE"), (np.full((2, 2), np.nan), "NON_FINITE"), ([[1.0, 0.5], [0.1, 1.0]], "NOT_SYMMETRIC")])
def test_nearest_correlation_says_what_is_wrong(a, code):
    with pytest.raises(InputError, match="symmetric") as err:
        nearest_correlation(a)
    assert err.value.code == code
    with pytest.raises(InputError, match="max_iter"):
        nearest_correlation(np.eye(2), max_iter=0)


def test_stacks_of_any_depth():
    x = np.stack([panel(i, 90, 4) for i in range(6)])
    x[1, :40, 2] = np.nan
    x[4, :, 0] = np.nan
    for f in (ledoit_wolf, pairwise_covariance):
        one, many = f(x), f(x.reshape(2, 3, 1, 90, 4))
        for a, b in zip(one, many, strict=True):
            assert b.shape == (2, 3, 1, *a.shape[1:])
            np.testing.assert_array_equal(b.reshape(a.shape), a)
    record = shrunk_covariance(x.reshape(2, 3, 90, 4), half_life=30)
    for f in fields(record):
        np.testing.assert_array_equal(getattr(record, f.name)[1, 1], getattr(shrunk_covariance(x[4], half_life=30), f.name))
    assert record.repair.shape == (2, 3)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_nearest_correlation_is_nearer_than_the_clip(seed):
    a = np.random.default_rng(seed).uniform(-1, 1, (4, 4))
    a = (a + a.T) / 2
    np.fill_diagonal(a, 1.0)
    near = nearest_correlation(a)
    assert np.linalg.eigvalsh(near)[0] >= -1e-8
    np.testing.assert_allclose(np.diag(near), 1.0)
    assert np.linalg.norm(near - a) <= np.linalg.norm(nearest_psd(a) - a) + 1e-8


# --- factor model -----------------------------------------------------------------------------------------------


def test_factor_covariance_more_symbols_than_bars():
    x = panel(21, 60, 150)
    cov = factor_covariance(x, n_factors=3, half_life=40)
    assert np.linalg.eigvalsh(cov)[0] > 0.0
    w = ewma_weights(60, 40)
    variance = w @ (x - w @ x) ** 2
    assert (np.diag(cov) >= variance * (1 - 1e-12)).all()
    book = np.random.default_rng(0).normal(size=(4, 150))
    model = factor_model(x, n_factors=3, half_life=40)
    np.testing.assert_allclose(model.variance(book), np.einsum("ij,jk,ik->i", book, cov, book), rtol=1e-11)


def test_factor_covariance_same_both_ways_round():
    x = panel(22, 60, 60)
    tall = factor_covariance(np.vstack([x, np.zeros((1, 60))]), n_factors=4)
    wide = factor_covariance(np.vstack([x, np.zeros((1, 60))])[:, :60], n_factors=4)
    np.testing.assert_allclose(tall, wide)
    few = factor_covariance(x[:, :59], n_factors=4)  # components from the small matrix
    full = np.cov(x[:, :59].T, ddof=0)
    np.testing.assert_allclose(np.diag(few), np.diag(full), rtol=1e-10)


def test_given_factors_recover_betas():
    rng = np.random.default_rng(23)
    f = 0.01 * rng.normal(size=(400, 2))
    beta = rng.normal(size=(5, 2))
    x = f @ beta.T + 0.002 * rng.normal(size=(400, 5))
    x[rng.random(x.shape) < 0.1] = np.nan
    model = factor_model(x, factor_returns=f)
    np.testing.assert_allclose(model.loadings, beta, atol=0.05)
    np.testing.assert_allclose(model.factor_cov, np.cov(f.T, ddof=0), rtol=1e-9)


def test_factor_gaps_and_empty_symbols():
    x = panel(24, 120, 20, 0.1)
    x[:, 3] = np.nan
    cov = factor_covariance(x, n_factors=2)
    live = np.arange(20) != 3
    assert np.isnan(cov[3]).all() and np.isfinite(cov[np.ix_(live, live)]).all()
    assert np.linalg.eigvalsh(cov[np.ix_(live, live)])[0] > 0.0


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "match"), [
    (lambda x: ledoit_wolf(x, target="honey"), "target must be one of"),
    (lambda x: ledoit_wolf(x[0]), r"\(T, K\)"),
    (lambda x: ledoit_wolf(x[:, :0]), r"\(T, K\)"),
    (lambda x: ledoit_wolf(np.where(x == x[0, 0], np.inf, x)), "finite or NaN"),
    (lambda x: ledoit_wolf(x, delta_scale=float("nan")), "delta_scale"),
    (lambda x: ledoit_wolf(x, half_life=0.0), "half_life"),
    (lambda x: rolling_covariance(x, 1), "window must be"),
    (lambda x: rolling_covariance(x, 10, ends=[99]), "ends must be row numbers"),
    (lambda x: rolling_covariance(x, None, -1.0, ends=range(40)), "half_life"),
    (lambda x: pairwise_covariance(x, variance="mixed"), "variance must be"),
    (lambda x: nearest_correlation(x), "symmetric"),
    (lambda x: factor_covariance(x, n_factors=0), "n_factors"),
    (lambda x: factor_covariance(x, factor_returns=x[:3]), "factor_returns"),
])
def test_refusals(call, match):
    with pytest.raises(InputError, match=match):
        call(panel(0, 60, 3))


def test_one_bar_under_the_overlap_counts_only_where_no_pair_has_more():
    x = panel(25, 100, 3)
    x[:45, 2] = np.nan  # 55 common bars: thin beside a pair with 100
    sd = np.nanstd(x, axis=0)
    corr = pairwise_covariance(x)[0] / np.outer(sd, sd)
    assert corr[0, 2] == pytest.approx(corr[0, 1], rel=1e-12)
    short = x[45:]
    short[0, 1] = np.nan  # 54 and 55 common bars, none has 60: all count
    sd = np.nanstd(short, axis=0)
    np.testing.assert_allclose(pairwise_covariance(short)[0] / np.outer(sd, sd), pd.DataFrame(short).corr(), atol=1e-12)
