"""Stage 0: one volatility, liveness, and the state machine of silent sleeves."""
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pil_research.stages import sleeves as S

seeds = st.integers(0, 2**32 - 1)


def _normalised(seed, k=4, m=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(k, m)), rng.uniform(0.002, 0.4, k)


@settings(max_examples=50, deadline=None)
@given(seeds, st.floats(1e-6, 1e6))
def test_positive_rescaling_changes_nothing(seed, factor):
    weights, vol = _normalised(seed)
    one = S.normalise_sleeves(weights, vol, 0.10, 0.005)
    two = S.normalise_sleeves(weights * factor, vol, 0.10, 0.005)
    np.testing.assert_allclose(two.unit, one.unit, rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(two.scale, one.scale)
    np.testing.assert_allclose(np.abs(one.unit).sum(-1), 1.0, atol=1e-15)


def test_power_of_two_rescaling_is_bitwise():
    weights, vol = _normalised(3)
    one, two = (S.normalise_sleeves(w, vol, 0.10, 0.005) for w in (weights, 1024.0 * weights))
    np.testing.assert_array_equal(one.unit, two.unit)


def test_scale_floor_and_disabled():
    weights, _ = _normalised(0)
    vol = np.array([0.20, 0.001, 0.0, np.nan])
    on = S.normalise_sleeves(weights, vol, 0.10, 0.005)
    np.testing.assert_allclose(on.scale, [0.5, 20.0, 20.0, 0.0], atol=1e-15)
    np.testing.assert_array_equal(S.normalise_sleeves(weights, vol, 0.10, 0.005, enabled=False).scale, np.ones(4))


@pytest.mark.parametrize("bad", [0.0, 1e-13, np.nan, np.inf, -np.inf])
def test_flat_or_unusable_rows_are_zero(bad):
    weights = np.ones((2, 3))
    weights[1] = 0.0
    weights[1, 2] = bad
    out = S.normalise_sleeves(weights, np.full(2, 0.1), 0.10, 0.005)
    np.testing.assert_array_equal(out.flat, [False, True])
    np.testing.assert_array_equal(out.unit[1], np.zeros(3))


def test_configurations_share_one_call():
    weights, vol = _normalised(1)
    targets = np.array([0.05, 0.10, 0.20])
    vols = np.stack([vol, vol * 2.0, vol * 3.0])
    many = S.normalise_sleeves(weights, vols, targets, 0.005)
    for c in range(3):
        np.testing.assert_array_equal(many.scale[c], S.normalise_sleeves(weights, vols[c], targets[c], 0.005).scale)


# liveness -----------------------------------------------------------------------------------------------------------

def _feeds(rows=120, k=3, seed=0):
    return np.random.default_rng(seed).normal(0.0, 0.006, (rows, k))


def test_a_healthy_feed_is_ok_and_inputs_stay():
    returns = _feeds()
    before = returns.copy()
    live = S.check_liveness(returns, np.full(3, 0.1), 0.005)
    np.testing.assert_array_equal(live.observed, S.OBS_OK)
    np.testing.assert_array_equal(returns, before)


@pytest.mark.parametrize(("reason", "spoil", "vol"), [
    ("young", lambda r: r.__setitem__((slice(None, 61), 1), np.nan), 0.1),
    ("non_finite", lambda r: r.__setitem__((30, 1), np.inf), 0.1),
    ("no_volatility", lambda r: None, 0.0005),
    ("no_volatility", lambda r: None, np.nan),
    ("frozen_returns", lambda r: r.__setitem__((slice(-5, None), 1), -0.003), 0.1),
    ("ok", lambda r: r.__setitem__((slice(-4, None), 1), -0.003), 0.1),
    ("ok", lambda r: r.__setitem__((slice(-5, None), 1), 0.0), 0.1),
    ("ok", lambda r: r.__setitem__((slice(None, 60), 1), np.nan), 0.1),
])
def test_each_reason(reason, spoil, vol):
    returns = _feeds()
    spoil(returns)
    live = S.check_liveness(returns, np.array([0.1, vol, 0.1]), 0.005)
    assert S.LIVENESS_REASONS[live.reason[1]] == reason
    np.testing.assert_array_equal(live.observed[[0, 2]], S.OBS_OK)


def test_a_holiday_does_not_hide_a_frozen_feed():
    returns = _feeds(k=1)
    returns[-7:, 0] = [0.002, 0.002, np.nan, 0.002, np.nan, 0.002, 0.002]
    assert S.repeated_returns(returns, 5)[0]
    returns[-7, 0] = 0.001
    assert not S.repeated_returns(returns, 5)[0]


def test_too_short_a_history_is_not_frozen():
    assert not S.repeated_returns(np.full((4, 2), 0.01), 5).any()
    assert not S.repeated_returns(np.empty((0, 2)), 5).any()
    assert not S.unchanged_prices(np.zeros((4, 2)), np.ones((3, 2)), 5).any()


def test_unchanged_prices_need_a_position_and_all_symbols_still():
    returns = np.zeros((10, 3))
    returns[:, 1] = np.nan
    returns[-5, 2] = 0.01
    weights = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(S.unchanged_prices(returns, weights, 5), [True, False, False])
    np.testing.assert_array_equal(S.unchanged_prices(returns, weights, 4), [True, True, False])
    live = S.check_liveness(_feeds(), np.full(3, 0.1), 0.005, frozen_prices=np.array([False, True, False]))
    assert S.LIVENESS_REASONS[live.reason[1]] == "frozen_prices"


def test_liveness_over_configurations():
    live = S.check_liveness(_feeds(), np.full((2, 3), 0.004), np.array([0.005, 0.05]))
    np.testing.assert_array_equal(live.observed, [[S.OBS_OK] * 3, [S.OBS_DEAD] * 3])


# states -------------------------------------------------------------------------------------------------------------

def _run(observations, *, start=S.LIVE, applied=0.2, has_target=True, new_session=None, held_sessions=3):
    state, missed, share = np.array([start], dtype=np.int8), np.array([0]), np.array([0.0])
    out = []
    for i, seen in enumerate(observations):
        step = S.advance_sleeve_states(state, missed, share, np.array([applied]), np.array([has_target]),
                                       np.array([seen], dtype=np.int8), held_sessions=held_sessions,
                                       new_session=True if new_session is None else new_session[i])
        state, missed, share = step.state, step.missed, step.entry_share
        out.append(step)
    return out


def test_held_three_sessions_then_quarantined_until_ok():
    steps = _run([S.OBS_MISSING] * 5 + [S.OBS_OK])
    assert [int(s.state[0]) for s in steps] == [S.HELD] * 3 + [S.QUARANTINED] * 2 + [S.LIVE]
    assert [bool(s.entered_quarantine[0]) for s in steps] == [False] * 3 + [True, False, False]
    assert [float(s.entry_share[0]) for s in steps] == [0.0] * 3 + [0.2, 0.2, 0.0]
    assert [bool(s.changed) for s in steps] == [True, False, False, True, False, True]
    assert [bool(s.members[0]) for s in steps] == [True] * 3 + [False, False, True]


def test_slots_of_one_session_count_once():
    steps = _run([S.OBS_MISSING] * 8, new_session=[True, False] * 4)
    assert [int(s.missed[0]) for s in steps] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [int(s.state[0]) for s in steps] == [S.HELD] * 6 + [S.QUARANTINED] * 2
    late = _run([S.OBS_MISSING, S.OBS_MISSING], new_session=[False, True])
    assert [int(s.missed[0]) for s in late] == [1, 2]


def test_no_previous_target_is_no_member():
    assert int(_run([S.OBS_MISSING], has_target=False)[0].state[0]) == S.ABSENT


@pytest.mark.parametrize("seen", [S.OBS_DEAD, S.OBS_YOUNG])
def test_dead_member_goes_to_quarantine_at_once(seen):
    step = _run([seen])[0]
    assert step.state[0] == S.QUARANTINED
    assert step.entered_quarantine[0]
    assert step.entry_share[0] == 0.2


def test_entry_share_is_kept_whatever_is_applied_later():
    first = _run([S.OBS_DEAD])[0]
    later = S.advance_sleeve_states(first.state, first.missed, first.entry_share, np.array([0.0]), np.array([True]),
                                    np.array([S.OBS_ABSENT]))
    assert later.state[0] == S.QUARANTINED
    assert later.entry_share[0] == 0.2


def test_zero_held_sessions_means_quarantine_at_once():
    assert _run([S.OBS_MISSING], held_sessions=0)[0].state[0] == S.QUARANTINED


@pytest.mark.parametrize(("state", "seen"), itertools.product(range(5), range(6)))
def test_invariants_of_every_transition(state, seen):
    step = _run([seen], start=state)[0]
    after = int(step.state[0])
    if seen == S.OBS_OK:
        assert after == S.LIVE
    elif seen == S.OBS_DEMOTED:
        assert after == S.DEMOTED
    else:  # without a healthy target nobody becomes live, and only members can be held
        assert after != S.LIVE
        assert after != S.HELD or state in (S.LIVE, S.HELD)
    if state == S.QUARANTINED and seen not in (S.OBS_OK, S.OBS_DEMOTED):
        assert after == S.QUARANTINED
    if state == S.DEMOTED and seen != S.OBS_OK:
        assert after == S.DEMOTED
    assert bool(step.entered_quarantine[0]) == (after == S.QUARANTINED and state in (S.LIVE, S.HELD))
    assert bool(step.members[0]) == (after in (S.LIVE, S.HELD))
    assert bool(step.changed) == (after != state)
    assert (step.missed[0] > 0) == (after in (S.HELD, S.QUARANTINED))


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_states_of_many_configurations_equal_one_by_one(seed):
    rng = np.random.default_rng(seed)
    c, k = 5, 4
    state = rng.integers(0, 5, (c, k)).astype(np.int8)
    missed, share, applied = rng.integers(0, 4, (c, k)), rng.random((c, k)), rng.random((c, k))
    target, seen, held = rng.random((c, k)) < 0.8, rng.integers(0, 6, k), rng.integers(0, 4, c)
    many = S.advance_sleeve_states(state, missed, share, applied, target, seen, held_sessions=held)
    for i in range(c):
        one = S.advance_sleeve_states(state[i], missed[i], share[i], applied[i], target[i], seen,
                                      held_sessions=held[i])
        for a, b in zip(many, one, strict=True):
            np.testing.assert_array_equal(a[i], b)


def test_budget():
    state = np.array([[S.LIVE, S.QUARANTINED, S.QUARANTINED], [S.LIVE, S.HELD, S.DEMOTED]], dtype=np.int8)
    share = np.array([[0.9, 0.2, 0.1], [0.5, 0.2, 0.3]])
    np.testing.assert_allclose(S.quarantine_budget(state, share), [0.7, 1.0], atol=1e-15)
    assert S.quarantine_budget(state[1], share[1]) == 1.0
    assert S.quarantine_budget(np.full(3, S.QUARANTINED, np.int8), np.full(3, 0.4)) == 0.0


# held limit ---------------------------------------------------------------------------------------------------------

@settings(max_examples=60, deadline=None)
@given(arrays(float, (2, 5), elements=st.floats(-3, 3)), seeds, st.booleans())
def test_never_above_the_held_book(books, seed, active):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(5, 5))
    new, held = books
    vol, held_vol = (float(np.linalg.norm(root @ b)) for b in books)
    out, scalar = S.limit_to_held(new, held, vol, held_vol, active)
    assert 0.0 <= scalar <= 1.0
    if not active:
        assert out is new
        return
    assert np.abs(out).sum() <= np.abs(held).sum() * (1 + 1e-12) + 1e-300
    assert np.linalg.norm(root @ out) <= held_vol * (1 + 1e-9) + 1e-12
    np.testing.assert_allclose(out, scalar * new)
    if np.abs(new).sum() <= np.abs(held).sum() and vol <= held_vol:
        np.testing.assert_array_equal(out, new)


def test_held_limit_acts_by_row_and_survives_missing_risk():
    new, held = np.ones((3, 2)), np.full((3, 2), 0.5)
    out, scalar = S.limit_to_held(new, held, np.array([1.0, np.nan, 1.0]), np.array([0.2, 0.1, 1.0]),
                                  np.array([True, True, False]))
    np.testing.assert_allclose(scalar, [0.2, 0.5, 1.0])
    np.testing.assert_array_equal(out[2], new[2])


# ---------------------------------------------------------------- held beside names that may not trade
def _risk(rng, m):
    root = rng.normal(size=(m, m + 2)) * 0.01
    return lambda e: np.square(e @ root).sum(-1)


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_free_names_are_scaled_as_little_as_gross_and_volatility_allow(seed):
    rng = np.random.default_rng(seed)
    variance, frozen = _risk(rng, 6), rng.random(6) < 0.4
    held = rng.normal(size=(3, 6)) * 0.1
    book = np.where(frozen, held, held * rng.uniform(0.3, 2.0, (3, 6)) + rng.normal(size=(3, 6)) * 0.03)
    out, k = S.limit_free_to_held(book, held, variance, np.array([True, True, False]), frozen)
    assert ((k >= 0.0) & (k <= 1.0)).all() and k[2] == 1.0
    np.testing.assert_array_equal(out[2], book[2])
    np.testing.assert_array_equal(out[:, frozen], book[:, frozen])
    np.testing.assert_allclose(out[:2, ~frozen], k[:2, None] * book[:2, ~frozen], rtol=1e-14)
    fixed = np.where(frozen, book, 0.0)
    for i in (0, 1):
        def fits(s, i=i):
            e = fixed[i] + s * (book[i] - fixed[i])
            return (np.abs(e).sum() <= np.abs(held[i]).sum() + 1e-12
                    and variance(e) <= variance(held[i]) * (1.0 + 1e-9))
        grid = [s for s in np.linspace(0.0, 1.0, 201) if fits(s)]
        if grid:  # the largest that fits
            assert fits(k[i]) and k[i] >= max(grid) - 1e-9
        assert np.abs(out[i]).sum() <= np.abs(held[i]).sum() + 1e-12


def test_without_frozen_names_it_is_the_one_scalar_of_before():
    rng = np.random.default_rng(1)
    variance, held = _risk(rng, 5), rng.normal(size=(4, 5)) * 0.1
    book, on = held * rng.uniform(0.5, 2.0, (4, 5)), np.ones(4, dtype=bool)
    one, a = S.limit_to_held(book, held, np.sqrt(variance(book)), np.sqrt(variance(held)), on)
    two, b = S.limit_free_to_held(book, held, variance, on, np.zeros(5, dtype=bool))
    np.testing.assert_allclose(b, a, rtol=1e-10)
    np.testing.assert_allclose(two, one, rtol=1e-10)


def test_a_variance_that_is_no_number_leaves_gross_to_decide():
    held, book = np.array([[0.1, 0.1]]), np.array([[0.1, 0.3]])
    out, k = S.limit_free_to_held(book, held, lambda e: np.full(e.shape[:-1], np.nan), [True], np.array([True, False]))
    np.testing.assert_allclose((out, k[:, None] * np.ones((1, 2))), ([[0.1, 0.1]], [[1 / 3, 1 / 3]]))
