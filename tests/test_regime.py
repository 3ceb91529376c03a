"""Regime: the read is checked, features and detector never look ahead."""

import numpy as np
import pandas as pd
import pytest

from pil_research.estimators.regime import REGIME_FEATURES, check_regime, regime_features
from pil_research.research.regime import RegimeDetector, filter_regimes, fit_regimes
from pil_research.types import REGIME_LABELS, InputError, RegimeRead


@pytest.mark.parametrize(("label", "code"), [("risk_on", 0), ("transition", 1), ("crisis", 2)])
def test_codes(label, code):
    assert check_regime(RegimeRead(label=label, confidence=0.4)) == (code, 0.4)


def test_no_read_tilts_nothing():
    assert check_regime(None) == (1, 0.0)


def test_bad_reads_are_errors():
    with pytest.raises(InputError, match="regime label"):
        RegimeRead(label="bull", confidence=0.5)
    with pytest.raises(InputError, match="confidence"):
        RegimeRead(label="crisis", confidence=float("nan"))
    with pytest.raises(InputError, match="RegimeRead or None"):
        check_regime("crisis")
    forged = RegimeRead(label="crisis", confidence=0.5)
    object.__setattr__(forged, "label", "bear")
    with pytest.raises(InputError, match="regime label"):
        check_regime(forged)


def markets(seed=0, n=2016, m=12):
    rng = np.random.default_rng(seed)
    bad = np.zeros(n, dtype=bool)
    bad[400:526] = bad[1500:1626] = True
    common = rng.normal(size=(n, 1))
    calm = 0.01 * (0.3 * common + 0.95 * rng.normal(size=(n, m)))
    stress = 0.03 * (0.8 * common + 0.6 * rng.normal(size=(n, m))) - 0.004
    x = np.where(bad[:, None], stress, calm)
    x[rng.random(x.shape) < 0.03] = np.nan
    return x, bad


def test_features_show_a_crisis():
    x, _ = markets()
    f = regime_features(x)
    assert f.shape == (2016, 4) and len(REGIME_FEATURES) == 4
    assert np.isnan(f[:252]).all() and np.isfinite(f[252:]).all()
    quiet, bad = f[1300:1490].mean(axis=0), f[1540:1600].mean(axis=0)
    assert bad[0] > 1.3 * quiet[0] and bad[1] > quiet[1] + 0.5 and bad[2] > quiet[2] + 0.2 and bad[3] < quiet[3]


def test_features_never_look_ahead():
    x, _ = markets(1)
    other = x.copy()
    other[1000:] = 5.0 * np.nan_to_num(other[1000:]) + 0.02
    np.testing.assert_array_equal(regime_features(x)[:1000], regime_features(other)[:1000])


def test_average_correlation_of_equicorrelated_markets():
    rng = np.random.default_rng(2)
    x = 0.01 * (np.sqrt(0.4) * rng.normal(size=(3000, 1)) + np.sqrt(0.6) * rng.normal(size=(3000, 30)))
    assert regime_features(x)[500:, 2].mean() == pytest.approx(0.4, abs=0.03)


def test_feature_weights():
    x, _ = markets(3)
    one = np.zeros(12)
    one[4] = 1.0
    alone = regime_features(x, weights=one)
    np.testing.assert_allclose(alone[300:, 1], regime_features(x[:, [4]])[300:, 1], rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match="weights must be"):
        regime_features(x, weights=-one)
    with pytest.raises(InputError, match=r"\(T, M\)"):
        regime_features(x[:, 0])


def test_dead_market_is_harmless():
    x, _ = markets(4)
    x[:, 3], x[:, 5] = np.nan, 0.0
    assert np.isfinite(regime_features(x)[252:]).all()


@pytest.fixture(scope="module")
def detected():
    x, bad = markets()
    frame = pd.DataFrame(x, index=pd.bdate_range("2016-01-01", periods=len(x)))
    return frame, bad, RegimeDetector().detect(frame)


def test_detector_output(detected):
    frame, _, reads = detected
    assert reads.index.equals(frame.index) and list(reads)[:2] == ["label", "confidence"]
    assert set(reads["label"]) <= set(REGIME_LABELS) and reads["confidence"].between(0.0, 1.0).all()
    first = reads[reads["confidence"] > 0.0].index[0]
    assert first.year == 2019 and (reads.loc[:first - pd.Timedelta(days=1), "label"] == "transition").all()
    known = reads.loc[first:, list(REGIME_LABELS)]
    np.testing.assert_allclose(known.sum(axis=1), 1.0, rtol=1e-12)
    for label, confidence in reads[["label", "confidence"]].itertuples(index=False):
        RegimeRead(label=label, confidence=confidence)


def test_detector_finds_the_second_crisis(detected):
    _, _, reads = detected
    assert (reads["label"].iloc[1530:1620] == "crisis").mean() > 0.8
    assert (reads["label"].iloc[1100:1490] == "crisis").mean() < 0.3


@pytest.mark.parametrize("cut", [1200, 1305, 1700])
def test_detector_never_looks_ahead(detected, cut):
    frame, _, reads = detected
    other = frame.copy()
    other.iloc[cut:] = 4.0 * other.iloc[cut:].fillna(0.0) - 0.01
    pd.testing.assert_frame_equal(RegimeDetector().detect(other).iloc[:cut], reads.iloc[:cut], check_exact=True)


def test_filter_is_causal_and_survives_holes():
    x, _ = markets()
    f = regime_features(x)
    model = fit_regimes(f[252:1000])
    assert (np.diff(model.means) > 0).all()
    holed = f[1000:1100].copy()
    holed[40:45] = np.nan
    p = filter_regimes(model, holed)
    assert np.isfinite(p).all()
    np.testing.assert_array_equal(filter_regimes(model, holed[:60]), p[:60])
    np.testing.assert_allclose(filter_regimes(model, holed[60:], p[59]), p[60:], rtol=1e-12)


def test_extremely_calm_is_not_a_crisis():
    x, _ = markets()
    f = regime_features(x)
    model = fit_regimes(f[252:1400])
    calm = model.centre + np.array([-8.0, -8.0, -8.0, 8.0]) * model.scale
    assert filter_regimes(model, np.tile(calm, (20, 1)))[-1].argmax() == 0


def test_detector_refusals():
    with pytest.raises(InputError, match="increasing DatetimeIndex"):
        RegimeDetector().detect(pd.DataFrame(np.zeros((3, 2))))
    with pytest.raises(InputError, match="250 finite rows"):
        fit_regimes(np.zeros((10, 4)))


def test_short_history_is_transition():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), index=pd.bdate_range("2020-01-01", periods=300))
    reads = RegimeDetector().detect(frame)
    assert (reads["label"] == "transition").all() and (reads["confidence"] == 0.0).all()
