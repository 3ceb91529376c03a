"""Stage 1: tilt, caps, water-filling, smoothing, application and the probation ramp."""
import inspect

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pil_research.stages import allocation as A

seeds = st.integers(0, 2**32 - 1)
INF = np.inf


def _draw(seed, c=(), k=None, inactive=0.3):
    rng = np.random.default_rng(seed)
    k = k or int(rng.integers(1, 13))
    base = rng.dirichlet(np.full(k, 0.7), size=c)
    if inactive:
        base = np.where(rng.random(base.shape) < inactive, 0.0, base)
    return rng, base


def _tilt_by_bisection(base, x, bound):
    low, high = (1 - bound) * base, (1 + bound) * base
    a, b = 0.0, 1e6
    for _ in range(200):
        c = 0.5 * (a + b)
        a, b = (c, b) if np.clip(c * x, low, high).sum() < base.sum() else (a, c)
    return np.clip(b * x, low, high)


def _fill_by_rounds(target, caps, budget):
    weights, free = np.zeros_like(target), target > 0
    for _ in range(len(target) + 1):
        rest = budget - weights[~free].sum()
        if not free.any() or rest <= 0:
            break
        weights[free] = target[free] * rest / target[free].sum()
        over = free & (weights > caps)
        if not over.any():
            break
        weights[over] = caps[over]
        free &= ~over
    return np.minimum(weights, caps)


# multipliers --------------------------------------------------------------------------------------------------------

def test_skill_multiplier_values():
    z = np.array([-5.0, -2.0, -1.0, 0.0, 1.0, 2.0, 5.0, np.nan])
    warm = np.ones(8, dtype=bool)
    expected = [0.75, 0.75, 0.875, 1.0, 1.125, 1.25, 1.25, 1.0]
    np.testing.assert_array_equal(A.skill_multiplier(z, 0.25, warm), expected)
    np.testing.assert_array_equal(A.skill_multiplier(z, 0.25, ~warm), 1.0)
    np.testing.assert_array_equal(A.skill_multiplier(z, np.array([0.25, 0.0]), warm)[1], 1.0)


def test_redundancy_divisor_values():
    corr = np.array([[1.0, 0.9, 0.8, np.nan], [0.9, 1.0, 0.2, 0.99], [0.8, 0.2, 1.0, 0.0], [np.nan, 0.99, 0.0, 1.0]])
    active = np.array([True, True, True, False])
    np.testing.assert_allclose(A.redundancy_divisor(corr, active, 0.7), [1.3, 1.2, 1.1, 1.0], atol=1e-15)
    many = A.redundancy_divisor(corr, np.stack([active, active]), np.array([0.7, 0.95]))
    np.testing.assert_allclose(many[1], 1.0)


# tilt ---------------------------------------------------------------------------------------------------------------

@settings(max_examples=200, deadline=None)
@given(seeds, st.floats(0.0, 0.9), st.floats(0.01, 3.0))
def test_tilt_keeps_sum_and_bound_and_matches_bisection(seed, bound, spread):
    rng, base = _draw(seed)
    x = base * np.exp(rng.normal(0.0, spread, base.shape))
    tilted = A.tilt_within_bound(base, x, bound)
    np.testing.assert_allclose(tilted.sum(), base.sum(), atol=2e-13 if spread > 1 else 4e-15)
    assert (tilted >= (1 - bound) * base * (1 - 1e-15)).all()
    assert (tilted <= (1 + bound) * base * (1 + 1e-15)).all()
    if (x >= 1e-5 * base).all():
        np.testing.assert_allclose(tilted, _tilt_by_bisection(base, x, bound), atol=1e-11)
    order = np.argsort(np.where(base > 0, x / np.where(base > 0, base, 1), 0))
    gain = np.where(base > 0, tilted / np.where(base > 0, base, 1), 0)[order]
    assert (np.diff(gain[base[order] > 0]) >= -1e-14).all()  # a larger multiplier never gets the smaller tilt


def test_neutral_tilt_is_bitwise_the_base():
    _, base = _draw(5, (7,), 6)
    assert A.tilt_within_bound(base, base * 1.0, 0.25) is base
    x = base.copy()
    x[2] = base[2] * [1.2, 1, 1, 1, 1, 0.7]
    out = A.tilt_within_bound(base, x, 0.25)
    np.testing.assert_array_equal(np.delete(out, 2, 0), np.delete(base, 2, 0))
    for factor in (0.3, 1.25, 7.0):
        np.testing.assert_allclose(A.tilt_within_bound(base, base * factor, 0.25), base, atol=1e-16)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_tilt_rows_equal_single_calls_and_inactive_entries_are_not_read(seed):
    rng, base = _draw(seed, (4,), 6)
    x = base * rng.uniform(0.5, 1.6, base.shape)
    bound = rng.uniform(0.0, 0.6, 4)
    many = A.tilt_within_bound(base, x, bound)
    for i in range(4):
        np.testing.assert_allclose(A.tilt_within_bound(base[i], x[i], bound[i]), many[i], atol=1e-15)
    garbage = np.where(base > 0, x, rng.uniform(0, 9, x.shape))
    np.testing.assert_array_equal(A.tilt_within_bound(base, garbage, bound), many)
    assert (many[base == 0] == 0).all()


def test_tilt_all_at_bounds_and_degenerate():
    np.testing.assert_allclose(A.tilt_within_bound(np.full(2, 0.5), np.array([1.0, 0.25]), 0.25), [0.625, 0.375])
    np.testing.assert_array_equal(A.tilt_within_bound(np.zeros(3), np.ones(3), 0.25), np.zeros(3))
    np.testing.assert_allclose(A.tilt_within_bound(np.full(2, 0.5), np.zeros(2), 0.25), 0.5)
    np.testing.assert_allclose(A.tilt_within_bound(np.full(2, 0.5), np.array([0.0, 1.0]), 0.25), [0.375, 0.625])
    np.testing.assert_allclose(A.tilt_within_bound(np.array([1.0]), np.array([0.3]), 0.25), [1.0])
    np.testing.assert_allclose(A.tilt_within_bound(np.full(2, 0.5), np.array([1.0, 0.2]), np.array([0.0, 0.25])),
                               [[0.5, 0.5], [0.625, 0.375]])


# caps ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("n", "cap", "relaxed"), [(1, 1.0, True), (2, 0.5, True), (3, 1 / 3, True), (4, 0.3, False),
                                                   (12, 0.3, False), (0, 1.0, True)])
def test_common_cap(n, cap, relaxed):
    out = A.sleeve_caps(0.30, n, np.full(3, INF), 1e6)
    np.testing.assert_array_equal(out.caps, cap)
    assert bool(out.relaxed) == relaxed


def test_cap_equal_to_one_over_k_is_not_relaxed():
    assert not A.sleeve_caps(0.1, 10, np.full(3, INF), 1e6).relaxed
    assert not A.sleeve_caps(1 / 3, 3, np.full(3, INF), 1e6).relaxed


def test_capacity_and_held_cap_are_never_relaxed():
    out = A.sleeve_caps(0.30, 2, np.array([1e5, INF]), 1e6, held_cap=np.array([INF, 0.07]))
    np.testing.assert_allclose(out.caps, [0.1, 0.07])
    for equity in (0.0, -5.0, np.nan):
        np.testing.assert_array_equal(A.sleeve_caps(0.3, 4, np.array([1e5, INF]), equity).caps, [0.0, 0.3])
    np.testing.assert_array_equal(A.sleeve_caps(0.3, 4, np.array([np.nan, 0.0]), 1e6).caps, [0.0, 0.0])
    many = A.sleeve_caps(np.array([0.2, 0.4]), np.array([4, 2]), np.array([INF, 1e5]), np.array([1e6, 5e5]))
    np.testing.assert_allclose(many.caps, [[0.25, 0.1], [0.5, 0.2]])


@settings(max_examples=300, deadline=None)
@given(seeds, st.floats(0.0, 1.0))
def test_water_filling_matches_rounds(seed, budget):
    rng, target = _draw(seed)
    target = np.where(rng.random(target.shape) < 0.1, target * 1e-9, target)
    caps = np.where(rng.random(target.shape) < 0.2, rng.choice([0.0, INF, 1e-12]), rng.uniform(0, 0.6, target.shape))
    out = A.cap_weights(target, caps, budget)
    np.testing.assert_allclose(out.weights, _fill_by_rounds(target, caps, budget), atol=1e-14)
    assert (out.weights <= caps).all()
    assert (out.weights >= 0.0).all()
    np.testing.assert_allclose(out.weights.sum() + out.cash, budget, atol=1e-14)
    room = np.minimum(caps, budget)[target > 0].sum()
    np.testing.assert_allclose(out.weights.sum(), min(room, budget), atol=1e-14)
    assert not out.capped[target == 0].any()
    free = (target > 0) & ~out.capped & (out.weights > 1e-9)
    if free.sum() > 1:  # those not cut keep their proportions
        np.testing.assert_allclose(np.ptp(out.weights[free] / target[free]) / (out.weights[free] / target[free]).max(),
                                   0.0, atol=1e-7)


def test_water_filling_known_cases():
    out = A.cap_weights(np.array([0.7, 0.2, 0.1]), np.full(3, 0.5))
    np.testing.assert_allclose(out.weights, [0.5, 1 / 3, 1 / 6], atol=1e-15)
    np.testing.assert_array_equal(out.capped, [True, False, False])
    flat = A.cap_weights(np.full(4, 0.25), np.full(4, 0.25))
    np.testing.assert_array_equal(flat.weights, 0.25)
    assert flat.cash == 0.0
    assert not flat.capped.any()
    none = A.cap_weights(np.zeros(3), np.full(3, 0.5))
    np.testing.assert_array_equal(none.weights, 0.0)
    assert none.cash == 1.0
    closed = A.cap_weights(np.array([0.5, 0.5]), np.zeros(2))
    assert closed.cash == 1.0
    assert closed.capped.all()
    np.testing.assert_array_equal(A.cap_weights(np.array([1.0]), np.array([0.3])).weights, [0.3])


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_water_filling_rows_and_shapes(seed):
    rng, target = _draw(seed, (4,), 5)
    caps, budget = rng.uniform(0, 0.5, (4, 5)), rng.uniform(0, 1, 4)
    many = A.cap_weights(target, caps, budget)
    for i in range(4):
        one = A.cap_weights(target[i], caps[i], budget[i])
        for a, b in zip(many, one, strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-15)
    shared = A.cap_weights(target[0], caps, budget)
    np.testing.assert_allclose(shared.weights[2], A.cap_weights(target[0], caps[2], budget[2]).weights, atol=1e-15)
    idle = np.where(target > 0, caps, rng.uniform(0, 1, caps.shape))
    np.testing.assert_array_equal(A.cap_weights(target, idle, budget).weights, many.weights)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_larger_budget_or_cap_never_takes_away(seed):
    rng, target = _draw(seed)
    caps = rng.uniform(0.0, 0.5, target.shape)
    small, large = sorted(rng.uniform(0, 1, 2))
    a, b = (A.cap_weights(target, caps, v).weights for v in (small, large))
    assert (b >= a - 1e-15).all()


# smoothing, application ---------------------------------------------------------------------------------------------

def _smooth(previous, target, **kw):
    k = len(target)
    kw = {"joiners": np.zeros(k, bool), "stayers": np.ones(k, bool), **kw}
    return A.smooth_weights(np.asarray(previous, float), np.asarray(target, float), 0.8, **kw)


def test_smoothing_is_the_published_recursion():
    np.testing.assert_allclose(_smooth([0.5, 0.5], [0.7, 0.3]), [0.54, 0.46], atol=1e-15)
    np.testing.assert_array_equal(_smooth([0.0, 0.0], [0.7, 0.3], first=True), [0.7, 0.3])
    np.testing.assert_allclose(_smooth([0.0, 0.0], [0.7, 0.3]), [0.7, 0.3])


def test_half_of_a_change_takes_3p1_allocations():
    weights, target, gaps = np.array([1.0, 0.0]), np.array([0.0, 1.0]), []
    for _ in range(4):
        weights = A.smooth_weights(weights, target, 0.8, joiners=np.zeros(2, bool), stayers=np.ones(2, bool))
        gaps.append(weights[0])
    np.testing.assert_allclose(gaps, 0.8 ** np.arange(1, 5), atol=1e-15)
    np.testing.assert_allclose(np.log(0.5) / np.log(0.8), 3.1062837195053903)


def test_joiner_enters_at_target_and_leaver_is_zero():
    joined = _smooth([0.5, 0.5, 0.0], [0.5, 0.3, 0.2], joiners=np.array([0, 0, 1], bool),
                     stayers=np.array([1, 1, 0], bool))
    np.testing.assert_allclose(joined, [0.42, 0.38, 0.2], atol=1e-15)
    left = _smooth([0.5, 0.3, 0.2], [0.6, 0.4, 0.0], stayers=np.array([1, 1, 0], bool))
    np.testing.assert_allclose(left, [0.8 * 0.625 + 0.12, 0.8 * 0.375 + 0.08, 0.0], atol=1e-15)


@settings(max_examples=100, deadline=None)
@given(seeds, st.floats(0.0, 1.0), st.floats(0.0, 0.99))
def test_smoothing_keeps_budget_and_rows(seed, budget, lam):
    rng = np.random.default_rng(seed)
    k = 6
    kind = rng.integers(0, 3, (3, k))  # leaver, joiner, stayer
    target = np.where(kind > 0, rng.random((3, k)), 0.0)
    assume((target.sum(-1) > 0).all() and (kind == 2).any(-1).all())
    target *= budget / target.sum(-1, keepdims=True)
    previous = rng.dirichlet(np.ones(k), 3)
    out = A.smooth_weights(previous, target, lam, joiners=kind == 1, stayers=kind == 2, budget=budget)
    np.testing.assert_allclose(out.sum(-1), budget, atol=1e-14)
    assert (out >= 0).all()
    assert (out[kind == 0] == 0).all()
    np.testing.assert_allclose(out[kind == 1], target[kind == 1], atol=1e-15)
    one = A.smooth_weights(previous[1], target[1], lam, joiners=kind[1] == 1, stayers=kind[1] == 2, budget=budget)
    np.testing.assert_allclose(one, out[1], atol=1e-16)


@settings(max_examples=60, deadline=None)
@given(seeds, st.floats(0.0, 0.99))
def test_daily_step_is_at_most_its_share(seed, lam):
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.ones(5), 2)
    out = A.smooth_weights(a, b, lam, joiners=np.zeros(5, bool), stayers=np.ones(5, bool))
    assert np.abs(out - a).sum() <= 2 * (1 - lam) + 1e-14


def test_apply_moves_whole_and_only_beyond_the_threshold():
    smoothed, applied = np.array([0.52, 0.28, 0.20]), np.array([0.50, 0.29, 0.21])
    out, moved = A.apply_weights(smoothed, applied, 0.02)
    assert not moved
    np.testing.assert_array_equal(out, applied)
    out, moved = A.apply_weights(smoothed + [1e-11, 0, 0], applied, 0.02)
    assert not moved  # last bits are no trade
    out, moved = A.apply_weights(smoothed + [1e-9, 0, 0], applied, 0.02)
    assert moved
    np.testing.assert_array_equal(out, smoothed + [1e-9, 0, 0])
    out, moved = A.apply_weights(smoothed, applied, 0.02, force=True)
    assert moved
    np.testing.assert_array_equal(out, smoothed)
    out, moved = A.apply_weights(np.stack([smoothed] * 3), applied, np.array([0.02, 0.01, 0.02]),
                                 np.array([False, False, True]))
    np.testing.assert_array_equal(moved, [False, True, True])


def test_a_lasting_gap_is_always_closed_to_the_threshold():
    smoothed = applied = np.array([0.5, 0.5])
    target = np.array([0.57, 0.43])
    for _ in range(60):
        smoothed = _smooth(smoothed, target)
        applied, _ = A.apply_weights(smoothed, applied, 0.02)
    assert np.abs(applied - target).max() <= 0.02 + 1e-6


# probation ----------------------------------------------------------------------------------------------------------

def test_ramp_values():
    applied, caps = np.array([0.4, 0.4, 0.2]), np.full(3, 0.5)
    for day, weight in ((0, 0.1), (10, 0.15), (20, 0.2), (50, 0.2), (-3, 0.1)):
        out = A.ramp_weights(applied, np.array([INF, INF, day]), 20, caps)
        np.testing.assert_allclose(out.weights, [0.5 - weight / 2, 0.5 - weight / 2, weight], atol=1e-15)
        np.testing.assert_allclose(out.cash, 0.0, atol=1e-15)
    assert A.ramp_weights(applied, np.full(3, INF), 20, caps).weights is applied
    assert A.ramp_weights(applied, np.zeros(3), 0, caps).weights is applied


def test_ramp_leaves_cash_when_no_seasoned_sleeve_has_room():
    out = A.ramp_weights(np.array([0.5, 0.5]), np.zeros(2), 20, np.ones(2))
    np.testing.assert_allclose(out.weights, 0.25)
    np.testing.assert_allclose(out.cash, 0.5)
    out = A.ramp_weights(np.array([0.5, 0.5]), np.array([INF, 0.0]), 20, np.full(2, 0.6))
    np.testing.assert_allclose(out.weights, [0.6, 0.25])
    np.testing.assert_allclose(out.cash, 0.15)


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_ramp_keeps_total_caps_and_rows(seed):
    rng = np.random.default_rng(seed)
    caps = np.full(6, 0.35)
    applied = A.cap_weights(rng.dirichlet(np.ones(6), 4), caps, rng.uniform(0.5, 1, 4)).weights
    days = np.where(rng.random((4, 6)) < 0.3, rng.integers(0, 25, (4, 6)), INF)
    out = A.ramp_weights(applied, days, 20, caps)
    np.testing.assert_allclose(out.weights.sum(-1) + out.cash, applied.sum(-1), atol=1e-14)
    assert (out.weights <= caps).all()
    young = days < 20
    assert (out.weights[young] <= applied[young]).all()
    assert (out.weights[~young] >= applied[~young] - 1e-15).all()
    seasoned = ~young.any(-1)
    np.testing.assert_array_equal(out.weights[seasoned], applied[seasoned])
    one = A.ramp_weights(applied[0], days[0], 20, caps)
    np.testing.assert_allclose(one.weights, out.weights[0], atol=1e-15)


# cross-checks -------------------------------------------------------------------------------------------------------

def test_divergence_and_closest_pair():
    assert A.divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1.0
    corr = np.array([[1.0, 0.5, 0.9, 0.9], [0.5, 1.0, 0.1, 0.2], [0.9, 0.1, 1.0, np.nan], [0.9, 0.2, np.nan, 1.0]])
    rho, i, j = A.closest_pair(corr, np.ones(4, dtype=bool))
    assert (float(rho), int(i), int(j)) == (0.9, 0, 2)
    masks = np.array([[False, True, True, True], [True, False, False, False]])
    rho, i, j = A.closest_pair(corr, masks)
    np.testing.assert_array_equal(rho, [0.2, np.nan])
    np.testing.assert_array_equal(np.stack([i, j]), [[1, -1], [3, -1]])


def test_no_expected_return_is_asked_for():
    names = {p for f in vars(A).values() if inspect.isfunction(f) for p in inspect.signature(f).parameters}
    assert not names & {"mu", "expected_return", "expected_returns", "expected_gain", "forecast", "alpha"}


def test_flat_sleeves_are_not_at_work():
    share = A.allocated_share(np.array([[0.5, 0.3], [0.5, 0.3]]), np.array([[False, True], [False, False]]))
    np.testing.assert_allclose(share, [0.5, 0.8])
