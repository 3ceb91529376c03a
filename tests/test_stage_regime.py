"""Stage 6: the regime tilt."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.stages import regime as R
from pil_research.types import REGIME_LABELS, InputError

FACTORS = (1.2, 1.0, 0.8)
ROLES = np.array([R.DEFENSIVE, R.NEUTRAL, R.CYCLICAL], dtype=np.int8)


def test_codes_follow_the_labels():
    assert [REGIME_LABELS[i] for i in (R.RISK_ON, R.TRANSITION, R.CRISIS)] == ["risk_on", "transition", "crisis"]


@pytest.mark.parametrize(("label", "confidence", "expected"), [(0, 1.0, 0.12), (1, 1.0, 0.10), (2, 1.0, 0.08),
                                                               (0, 0.5, 0.11), (2, 0.5, 0.09), (2, 0.0, 0.10)])
def test_vol_target(label, confidence, expected):
    np.testing.assert_allclose(R.regime_vol_target(0.10, FACTORS, label, confidence), expected, atol=1e-16)


def test_confidence_zero_is_bitwise_the_base():
    for label in range(3):
        assert R.regime_vol_target(0.1, FACTORS, label, 0.0) == 0.1
        np.testing.assert_array_equal(R.regime_multiplier(ROLES, label, 0.0, 0.2), 1.0)


def test_multiplier_acts_in_a_crisis_only():
    np.testing.assert_allclose(R.regime_multiplier(ROLES, R.CRISIS, 1.0, 0.2), [1.2, 1.0, 0.8], atol=1e-16)
    np.testing.assert_allclose(R.regime_multiplier(ROLES, R.CRISIS, 0.5, 0.2), [1.1, 1.0, 0.9], atol=1e-16)
    for label in (R.RISK_ON, R.TRANSITION):
        np.testing.assert_array_equal(R.regime_multiplier(ROLES, label, 1.0, 0.2), 1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_configurations_share_one_call(seed):
    rng = np.random.default_rng(seed)
    base, factors = rng.uniform(0.05, 0.2, 4), rng.uniform(0.5, 1.5, (4, 3))
    label, confidence, tilt = rng.integers(0, 3, 4), rng.random(4), rng.random(4)
    target = R.regime_vol_target(base, factors, label, confidence)
    lean = R.regime_multiplier(ROLES, label, confidence, tilt)
    same = R.regime_vol_target(base, factors, 2, confidence)
    for i in range(4):
        assert target[i] == R.regime_vol_target(base[i], factors[i], label[i], confidence[i])
        assert same[i] == R.regime_vol_target(base[i], factors[i], 2, confidence[i])
        np.testing.assert_array_equal(lean[i], R.regime_multiplier(ROLES, label[i], confidence[i], tilt[i]))
    np.testing.assert_allclose(R.regime_vol_target(0.1, FACTORS, label, 1.0), 0.1 * np.array(FACTORS)[label])


@pytest.mark.parametrize("label", [-1, 3, np.nan])
def test_unknown_label(label):
    with pytest.raises(InputError, match="regime label must be"):
        R.regime_vol_target(0.1, FACTORS, label, 0.5)
    with pytest.raises(InputError, match="regime label must be"):
        R.regime_multiplier(ROLES, label, 0.5, 0.2)


@pytest.mark.parametrize("confidence", [-0.01, 1.01, np.nan, np.inf])
def test_bad_confidence(confidence):
    with pytest.raises(InputError, match="confidence must be in") as caught:
        R.regime_multiplier(ROLES, R.CRISIS, confidence, 0.2)
    assert caught.value.code == "BAD_REGIME"
