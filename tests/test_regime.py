"""Regime: the read is checked, features, detector and calibration never look ahead, and known confidences are recovered."""

import numpy as np
import pandas as pd
import pytest

from pil_research.config import PILConfig
from pil_research.estimators.regime import REGIME_FEATURES, check_regime, regime_features
from pil_research.research.calibration_section import calibration_html, calibration_json
from pil_research.research.data import synthetic_panel
from pil_research.research.regime import RegimeDetector, RegimeModel, filter_regimes, fit_regimes
from pil_research.research.regime_calibration import (
    METHODS,
    CalibratedDetector,
    HindsightJudge,
    RealisedJudge,
    brier_parts,
    calibrate_confidence,
    calibration_study,
    fit_map,
    make_judge,
    regime_books,
    regime_reads,
    reliability_table,
    smooth_regimes,
)
from pil_research.research.walk_forward import Track, run_tracks
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


def overconfident(n=6000, seed=0, slope=2.0):
    """Stated confidences that are too sure by a known factor, and whether they were right."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.4, 0.97, n)
    return p, 1.0 / (1.0 + ((1.0 - p) / p) ** slope), rng.random(n) < p


def test_platt_recovers_a_known_distortion():
    p, stated, right = overconfident(40_000)
    found = fit_map("platt", stated, right)
    np.testing.assert_allclose(found.x, [0.0, 0.5], atol=0.04)
    np.testing.assert_allclose(found(stated), p, atol=0.02)
    isotonic = fit_map("isotonic", stated, right)(stated)
    assert np.abs(isotonic - p).mean() < 0.02 and (np.diff(isotonic[np.argsort(stated)]) >= 0.0).all()
    np.testing.assert_allclose(fit_map("rate", stated, right)(stated), right.mean(), atol=1e-3)


def test_maps_never_fall_and_stay_inside():
    p, stated, right = overconfident(2000)
    for method in METHODS:
        found = fit_map(method, stated, ~right)  # the more it is said, the less it is true
        y = found(np.linspace(0.0, 1.0, 101))
        assert (np.diff(y) >= 0.0).all() and (y >= 0.0).all() and (y <= 1.0).all()
    for always in (True, False):
        y = fit_map("platt", stated[:300], np.full(300, always))(stated[:300])
        assert np.isfinite(y).all() and ((y > 0.9).all() if always else (y < 0.1).all())


@pytest.mark.parametrize(("method", "c", "y"), [("best", [0.5], [True]), ("platt", [], []), ("platt", [0.5, 0.6], [True]),
                                                ("rate", [np.nan], [True])])
def test_bad_maps(method, c, y):
    with pytest.raises(InputError, match="fit_map needs"):
        fit_map(method, c, y)


def test_brier_by_hand():
    parts = brier_parts([0.15, 0.15, 0.95, 0.95], [0, 1, 1, 1])
    assert parts["brier"] == pytest.approx((0.15**2 + 0.85**2 + 2 * 0.05**2) / 4)
    assert parts["reliability"] == pytest.approx((0.35**2 + 0.05**2) / 2) and parts["resolution"] == pytest.approx(0.25**2)
    assert parts["uncertainty"] == pytest.approx(0.1875) and parts["within"] == pytest.approx(0.0, abs=1e-15)
    assert parts["skill"] == pytest.approx(1 - parts["brier"] / 0.1875) and parts["error"] == pytest.approx(0.2)
    perfect = brier_parts([0.0, 1.0, 1.0], [0, 1, 1])
    assert perfect["brier"] == 0.0 and perfect["skill"] == 1.0


def test_murphy_identity_and_what_calibration_mends():
    p, stated, right = overconfident(50_000, seed=3)
    before, truth = brier_parts(stated, right), brier_parts(p, right)
    for x in (before, truth):
        assert x["brier"] == pytest.approx(x["reliability"] - x["resolution"] + x["uncertainty"] + x["within"], abs=1e-15)
    assert before["reliability"] > 5e-3 > 1e-3 > truth["reliability"]
    assert truth["brier"] == pytest.approx((p * (1.0 - p)).mean(), abs=3e-3)  # nothing is better than knowing p
    mended = brier_parts(fit_map("platt", stated, right)(stated), right)
    assert mended["reliability"] < 1e-3 and mended["brier"] < before["brier"]
    assert mended["resolution"] == pytest.approx(truth["resolution"], rel=0.05)


def test_reliability_table():
    _, stated, right = overconfident()
    dates = pd.bdate_range("2000-01-03", periods=len(stated))
    t = reliability_table(stated, right, dates, n_draws=300)
    assert t["days"].sum() == len(stated) and (t["low"] <= t["observed"]).all() and (t["observed"] <= t["high"]).all()
    own = (stated >= 0.9)
    assert t["observed"].iloc[-1] == pytest.approx(right[own].mean())
    assert t["stated"].iloc[-1] == pytest.approx(stated[own].mean())
    quarter = np.repeat(np.arange(100), 60) % 2 == 0  # right for whole quarters: few episodes, wide bars
    lumpy = reliability_table(np.full(6000, 0.55), quarter, dates, n_draws=300)
    assert (lumpy["high"] - lumpy["low"]).iloc[0] > 4 * (t["high"] - t["low"]).min()


class Oracle:
    """A judge with known labels; rows within `delay` of `stop` are not judged yet."""

    def __init__(self, labels, delay=5):
        self.truth, self.delay = np.asarray(labels), delay

    def labels(self, stop):
        out = np.full(stop, -1)
        out[:max(stop - self.delay, 0)] = self.truth[:max(stop - self.delay, 0)]
        return out


def known_read(seed=5, n=4500):
    p, stated, right = overconfident(n, seed)
    rng = np.random.default_rng(seed)
    code = rng.integers(0, 3, n)
    index = pd.bdate_range("2001-01-01", periods=n)
    read = pd.DataFrame({"label": np.array(REGIME_LABELS, dtype=object)[code], "confidence": stated}, index=index)
    return read, np.where(right, code, (code + 1) % 3), p


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_recovers_known_confidence(method):
    read, truth, p = known_read()
    out = calibrate_confidence(read, Oracle(truth), method)
    assert (out["label"] == read["label"]).all() and (out["stated"] == read["confidence"]).all()
    early = out.index.year <= 2002
    assert not out["fitted"][early].any() and (out["confidence"] == out["stated"])[early].all()
    late = out.index.year >= 2010
    assert out["fitted"][late].all()
    assert np.abs(out["confidence"][late] - p[late]).mean() < (0.03 if method == "platt" else 0.06)
    assert np.abs(out["stated"][late] - p[late]).mean() > 0.08


def test_calibration_is_point_in_time():
    read, truth, _ = known_read()
    whole = calibrate_confidence(read, Oracle(truth))
    for cut in (1500, 2609, 4000):
        other, changed = read.copy(), truth.copy()
        other.iloc[cut:, 1] = 0.5
        changed[cut - 5:] = (changed[cut - 5:] + 1) % 3  # what a judge would say about the last days before the cut, later
        pd.testing.assert_frame_equal(calibrate_confidence(other, Oracle(changed)).iloc[:cut], whole.iloc[:cut], check_exact=True)
        pd.testing.assert_frame_equal(calibrate_confidence(read.iloc[:cut], Oracle(truth)), whole.iloc[:cut], check_exact=True)


def test_calibration_leaves_no_read_alone():
    read, truth, _ = known_read()
    read.iloc[2000:2100, 1] = 0.0
    read.iloc[2100:2110, 0] = None
    out = calibrate_confidence(read, Oracle(truth))
    assert (out["confidence"].iloc[2000:2100] == 0.0).all() and not out["fitted"].iloc[2000:2110].any()


@pytest.fixture(scope="module")
def long_history():
    x, _ = markets(2)
    return pd.DataFrame(x, index=pd.bdate_range("2012-01-02", periods=len(x)))


@pytest.mark.parametrize("judge", ["hindsight", "realised"])
def test_calibrated_detector_never_looks_ahead(long_history, judge):
    detector = CalibratedDetector(judge=judge)
    reads = detector.detect(long_history)
    assert reads["fitted"].any() and reads["confidence"].between(0.0, 1.0).all()
    other = long_history.copy()
    other.iloc[1700:] = 4.0 * other.iloc[1700:].fillna(0.0) - 0.01
    pd.testing.assert_frame_equal(detector.detect(other).iloc[:1700], reads.iloc[:1700], check_exact=True)


def test_smoother_by_brute_force():
    """Every path of five steps, added up."""
    rng = np.random.default_rng(9)
    move = rng.uniform(0.1, 1.0, (3, 3))
    model = RegimeModel(centre=np.zeros(4), scale=np.ones(4), means=np.array([-1.0, 0.0, 1.5]),
                        deviations=np.array([0.5, 0.4, 0.9]), shares=np.array([0.5, 0.3, 0.2]),
                        transition=move / move.sum(axis=1, keepdims=True))
    f = rng.normal(size=(5, 4))
    f[2] = np.nan
    density = model.densities(model.stress(f))
    total = np.zeros((5, 3))
    for path in np.ndindex(3, 3, 3, 3, 3):
        weight = (model.shares @ model.transition)[path[0]] * density[0, path[0]]
        for t in range(1, 5):
            weight *= model.transition[path[t - 1], path[t]] * density[t, path[t]]
        for t in range(5):
            total[t, path[t]] += weight
    np.testing.assert_allclose(smooth_regimes(model, f), total / total.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(smooth_regimes(model, f)[-1], filter_regimes(model, f)[-1], rtol=1e-12)


def test_judges_say_nothing_too_early(long_history):
    x = long_history.to_numpy()
    h, r = HindsightJudge(regime_features(x)), RealisedJudge(x)
    assert (h.labels(1500)[-63:] == -1).all() and (r.labels(1500)[-21:] == -1).all() and (h.labels(200) == -1).all()
    changed = x.copy()
    changed[1500:] = 9.0 * np.nan_to_num(changed[1500:]) + 0.05
    np.testing.assert_array_equal(HindsightJudge(regime_features(changed)).labels(1500), h.labels(1500))
    np.testing.assert_array_equal(RealisedJudge(changed).labels(1500), r.labels(1500))
    assert set(np.unique(r.labels(2016))) == {-1, 0, 1, 2}
    with pytest.raises(InputError, match="judge must be"):
        make_judge("nobody", x)


def test_realised_judge_by_hand():
    rng = np.random.default_rng(1)
    x = 0.01 * rng.choice([-1.0, 1.0], size=(1200, 2))
    x[700:721] *= 3.0
    r = RealisedJudge(x)
    assert r.ahead[699] == pytest.approx(3.0, rel=1e-9) and r.ahead[400] == pytest.approx(1.0, rel=1e-9)
    assert r.labels(1200)[699] == 2 and np.isnan(r.ahead[-21:]).all() and np.isfinite(r.ahead[-22])


def test_study_section_and_short_history(long_history):
    study = calibration_study(long_history, RegimeDetector().detect(long_history), n_draws=100)
    for name in ("hindsight", "realised"):
        s = study.scores[name]
        assert s["uncertainty"].nunique() == 1 and s["gain"]["stated"] == 0.0  # one sample for all
        assert s["gain"]["platt"] == pytest.approx(s["brier"]["stated"] - s["brier"]["platt"])
        assert study.labels[name]["days"].sum() == study.reliability[name]["platt"]["days"].sum() and 0 < study.steady[name] <= 1
    section = calibration_html(study)
    assert section.count("<svg") == 1 and "hindsight: risk_on" in section and "Net SR" not in section
    assert set(calibration_json(study)["scores"]["realised"]) == {"stated", "platt", "isotonic", "rate"}
    with pytest.raises(InputError, match="250 judged days"):
        short = long_history.iloc[:800]
        calibration_study(short, RegimeDetector().detect(short))


def test_books_with_and_without_a_read():
    panel = synthetic_panel(3, n_sleeves=3, n_symbols=5, n_days=700)
    assert regime_reads(panel.select(end=panel.dates[300])) is None
    read = pd.DataFrame({"label": "crisis", "confidence": 1.0}, index=panel.dates)
    quiet = read.assign(confidence=0.0)
    books = regime_books(panel, PILConfig(), {"sure": read, "silent": quiet}, n_draws=100)
    assert list(books.index) == ["sure", "silent", "no regime"] and books["difference"]["no regime"] == 0.0
    assert books["vol"]["sure"] < books["vol"]["no regime"] and books["difference"]["silent"] == pytest.approx(0.0, abs=1e-12)
    off = PILConfig().replace(**{"regime.enabled": False})
    alone = run_tracks(panel, [Track(name="x", config=off)]).table()
    assert books["net_sharpe"]["no regime"] == pytest.approx(alone["net_sharpe"]["x"], abs=1e-12)
