"""Stage 3: one volatility target."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.stages.vol_target import leverage_multiplier, target_volatility

BOOK = np.array([0.5, -0.25])


def _call(vol, target=0.10, allocated=1.0, **kw):
    return target_volatility(BOOK, vol, target, 2.0, allocated, **kw)


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-6, 5.0), st.floats(0.01, 0.5), st.just(0.0) | st.floats(1e-300, 1.0))
def test_volatility_is_hit_or_the_ceiling_says_so(vol, target, allocated):
    out = _call(vol, target, allocated)
    goal = target * allocated
    if goal == 0.0:
        assert out.leverage == 1.0
        return
    assert out.leverage <= 2.0
    assert out.vol <= goal * (1 + 1e-12)
    assert bool(out.clipped) == (goal > 2.0 * vol * (1 + 1e-10))
    if not out.clipped:
        np.testing.assert_allclose(out.vol, goal, rtol=2e-10)
    np.testing.assert_array_equal(out.book, out.leverage * BOOK)
    assert not out.unavailable


def test_known_values():
    out = _call(0.08, allocated=0.9)
    np.testing.assert_allclose([out.leverage, out.goal, out.vol], [1.125, 0.09, 0.09])
    np.testing.assert_allclose(out.book, [0.5625, -0.28125])


def test_the_seeds_floor_is_an_alarm_only():
    out = _call(0.50)
    np.testing.assert_allclose([out.leverage, out.vol], [0.2, 0.10])
    assert out.below_alarm
    assert not _call(0.10 / 0.3).below_alarm  # exactly 0.3
    assert not _call(0.2).below_alarm
    assert _call(0.2, leverage_alarm=0.6).below_alarm


def test_nothing_to_scale():
    for out in (_call(0.0), _call(0.08, allocated=0.0)):
        assert out.leverage == 1.0
        assert not (out.clipped or out.below_alarm or out.unavailable)
        np.testing.assert_array_equal(out.book, BOOK)


@pytest.mark.parametrize(("vol", "target", "allocated"), [(np.nan, 0.1, 1.0), (np.inf, 0.1, 1.0), (0.1, np.nan, 1.0),
                                                          (0.1, 0.1, np.nan), (-0.1, 0.1, 1.0)])
def test_not_finite_is_unavailable_and_trades_nothing(vol, target, allocated):
    out = _call(vol, target, allocated)
    assert out.unavailable
    assert not (out.clipped or out.below_alarm)
    np.testing.assert_array_equal(out.book, 0.0)
    assert out.leverage == 0.0


def test_a_book_that_is_not_finite_is_unavailable():
    assert target_volatility(np.array([np.nan, 1.0]), 0.1, 0.1, 2.0, 1.0).unavailable


def test_tiny_volatility_does_not_overflow():
    out = _call(1e-320)
    assert out.leverage == 2.0
    assert out.clipped


def test_disabled_leaves_the_book():
    out = _call(0.5, enabled=False)
    assert out.leverage == 1.0
    np.testing.assert_array_equal(out.book, BOOK)
    assert not out.clipped
    assert _call(np.nan, enabled=False).unavailable


def test_configurations_share_one_call():
    vol, target = np.array([0.05, 0.2, np.nan, 0.0]), np.array([0.1, 0.2, 0.1, 0.1])
    most, alloc = np.array([1.5, 2.0, 2.0, 2.0]), np.array([1.0, 0.5, 1.0, 1.0])
    books = np.stack([BOOK] * 4)
    many = target_volatility(books, vol, target, most, alloc)
    for i in range(4):
        one = target_volatility(BOOK, vol[i], target[i], most[i], alloc[i])
        for a, b in zip(many, one, strict=True):
            np.testing.assert_array_equal(a[i], b)


def test_multiplier_scale_invariance():
    book_vol = np.array([0.03, 0.08, 0.4])
    leverage, _ = leverage_multiplier(book_vol, 0.1, 2.0)
    tripled, _ = leverage_multiplier(3 * book_vol, 0.3, 2.0)
    np.testing.assert_allclose(leverage, tripled)
