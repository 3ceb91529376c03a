"""The leak tests: planted leaks are found, honest sleeves are not, and poisoning the future proves either."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.research import leaks
from pil_research.research.data import default_panel, write_panel
from pil_research.research.leaks import (
    find_leaks,
    leak_tests,
    leaks_command,
    mean_test,
    regime_tests,
    standardised_returns,
)
from pil_research.research.perturbation import perturbation_leaks, poisoned, reference_leaks
from pil_research.research.regime import RegimeDetector, filter_regimes, fit_regimes
from pil_research.research.sleeves import reference_sleeves
from pil_research.research.synthetic_panel import synthetic_panel
from pil_research.types import InputError


def with_targets(panel, **targets):
    facts = pd.concat([panel.sleeves.iloc[:1].set_axis([k]) for k in sorted(targets)])
    return replace(panel, targets={k: targets[k] for k in sorted(targets)}, sleeves=facts, regime=None)


def rule(panel, bars, sign=1.0):
    return sign * panel.returns.fillna(0.0).rolling(bars).sum()


def found(panel):
    return {k.subject for k in find_leaks(panel)}


@pytest.fixture(scope="module")
def futures():
    return default_panel("default", "2000-01-01")


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("bars", [1, 5, 20, 60])
def test_daily_rules_are_honest_and_caught_when_they_peek(bars, sign):
    panel = synthetic_panel(bars, n_sleeves=2, n_symbols=12, n_days=900)
    honest = rule(panel, bars, sign)
    peeks = {"one": honest.shift(-1), "three": honest.shift(-3), "part": 0.8 * honest + 0.2 * honest.shift(-1),
             "centred": honest.rolling(5, center=True).mean()}
    assert found(with_targets(panel, honest=honest, late=honest.shift(2), **peeks)) == set(peeks)


@pytest.mark.parametrize(("days", "symbols"), [(300, 2), (500, 1), (500, 3), (2000, 3)])
def test_the_next_return_itself(days, symbols):
    panel = synthetic_panel(1, n_sleeves=2, n_symbols=symbols, n_days=days)
    ahead = np.sign(panel.returns.shift(-1)).fillna(0.0)
    (leak,) = find_leaks(with_targets(panel, oracle=ahead, other=rule(panel, 20)))
    assert leak.subject == "oracle" and leak.leads[0] == 1 and leak.effect > 10 and leak.p < 1e-6
    assert "oracle: direction leak" in str(leak) and "shift(-1)" in leak.remedy


def test_no_false_alarm_on_invented_panels():
    flagged = [k for seed in range(16) for k in find_leaks(replace(synthetic_panel(
        seed + 50, n_sleeves=3, n_symbols=8 + seed, n_days=400 + 40 * seed, sharpe=[0.0, 0.6, 1.5][seed % 3]), regime=None))]
    assert flagged == []


def test_default_futures_are_honest_and_one_early_bar_is_found(futures):
    assert find_leaks(futures) == ()
    for name in ("trend", "pairs"):
        early = replace(futures, targets={**futures.targets, name: futures.targets[name].shift(-1)})
        (leak, *rest) = find_leaks(early)
        assert {leak.subject, *(r.subject for r in rest)} == {name} and 1 in leak.leads
        assert abs(leak.effect) > 0.5 * abs(leak.reaction) or leak.effect * leak.reaction <= 0


def test_a_back_filled_part_is_found_with_its_dates():
    panel = synthetic_panel(4, n_sleeves=2, n_symbols=12, n_days=2500)
    honest = rule(panel, 20)
    part = pd.concat([honest.iloc[:300], honest.shift(-1).iloc[300:550], honest.iloc[550:]])
    (leak,) = find_leaks(with_targets(panel, part=part, honest=honest))
    assert leak.subject == "part" and leak.start <= str(panel.dates[550].date()) and leak.end >= str(panel.dates[300].date())


def test_scale_and_sign_of_a_sleeve_change_nothing():
    panel = synthetic_panel(5, n_sleeves=2, n_symbols=8, n_days=700)
    w = rule(panel, 10).shift(-1)
    a, b, c = (leak_tests(with_targets(panel, s=x)) for x in (w, 7.5 * w, -w))
    np.testing.assert_allclose(a["t"], b["t"], rtol=1e-9)
    np.testing.assert_allclose(a["t"].abs(), c["t"].abs(), rtol=1e-9)


def test_gaps_flat_days_and_late_sleeves_are_no_leak():
    panel = synthetic_panel(6, n_sleeves=2, n_symbols=12, n_days=1200, missing=0.08)
    w = rule(panel, 10)
    w.iloc[200:260] = 0.0
    w.iloc[:150] = np.nan
    assert found(with_targets(panel, s=w)) == set()
    z, _ = standardised_returns(panel.returns.to_numpy())
    after_gap = np.isnan(panel.returns.to_numpy()[:-1])
    assert np.isnan(z[1:][after_gap]).all() and np.nanmax(np.abs(z)) <= 5.0


def test_constant_and_empty_targets_give_no_test():
    panel = synthetic_panel(6, n_sleeves=2, n_symbols=5, n_days=400)
    still = pd.DataFrame(0.2, index=panel.dates, columns=list(panel.symbols))
    assert leak_tests(with_targets(panel, a=still, b=still * 0.0, c=still * np.nan)).empty
    assert find_leaks(with_targets(panel, a=still)) == ()
    with pytest.raises(InputError, match="250 sessions") as err:
        leak_tests(panel.select(end=panel.dates[100]))
    assert err.value.code == "TOO_SHORT"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_mean_test_keeps_its_size(seed):
    x = np.random.default_rng(seed).standard_normal(300)
    effect, t, n = mean_test(x)
    assert n == 300 and abs(t) < 5.5
    assert effect == pytest.approx(x.mean() / x.std() * np.sqrt(252))
    assert abs(t) <= abs(x.mean() / x.std() * np.sqrt(300)) + 1e-12
    assert mean_test(np.ones(300))[1] == pytest.approx(300) and np.isnan(mean_test(np.zeros(300))[1])
    assert np.isnan(mean_test(x[:59])[1]) and mean_test(x[:0])[2] == 0


def test_regime_labels_that_lead_the_market_are_found(futures):
    panel = futures
    returns = panel.returns.to_numpy()
    read = RegimeDetector().detect(panel.returns)[["label", "confidence"]]
    few = panel.select(sleeves=["trend"])
    assert not find_leaks(replace(few, regime=read)) and max(r["t"] for r in regime_tests(read, returns)) < 3
    for bars in (1, 2):
        (leak,) = find_leaks(replace(few, regime=read.shift(-bars).ffill()))
        assert leak.subject == leak.channel == "regime" and leak.sure and bars in leak.leads and "filtered" in leak.remedy


def test_true_states_are_a_suspicion_only():
    suspected = [k for seed in (2, 6, 17) for k in find_leaks(synthetic_panel(seed, n_sleeves=1, n_symbols=20, n_days=3000))]
    assert suspected and all(k.channel == "regime" and not k.sure for k in suspected)


def test_command_codes(tmp_path):
    panel = replace(synthetic_panel(7, n_sleeves=2, n_symbols=6, n_days=400), regime=None)
    write_panel(panel, tmp_path / "honest")
    code, lines = leaks_command(tmp_path / "honest")
    assert code == 0 and "no leak found" in lines[-1] and "2 sleeves" in lines[0]
    write_panel(replace(panel, targets={**panel.targets, "sleeve_a": panel.returns.shift(-1).fillna(0.0)}), tmp_path / "leak")
    code, lines = leaks_command(tmp_path / "leak")
    assert code == 2 and lines[1].startswith("sleeve_a: direction leak, 1 bar ahead") and "remedy" in lines[2]


# poisoning the future


def test_poison_keeps_the_past():
    returns = synthetic_panel(1, n_sleeves=1, n_symbols=5, n_days=300).returns
    other = poisoned(returns, 200)
    pd.testing.assert_frame_equal(other.iloc[:200], returns.iloc[:200])
    assert not (other.iloc[200:] == returns.iloc[200:]).to_numpy().any() and other.min().min() > -1


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_every_look_ahead_is_proved_with_its_length(ahead, seed):
    returns = synthetic_panel(seed, n_sleeves=1, n_symbols=4, n_days=260).returns
    proofs = perturbation_leaks(lambda r: r.fillna(0.0).rolling(5).sum().shift(-ahead), returns, at=2, seed=seed)
    assert {p.bars for p in proofs} == {1} and {p.column for p in proofs} == set(returns.columns)
    lengths = [(p.poisoned_from - p.date).days for p in proofs]  # shorter where the first poisoned bar has no quote
    assert min(lengths) >= 1 and max(lengths) >= ahead
    assert perturbation_leaks(lambda r: r.fillna(0.0).rolling(5).sum(), returns, at=3, seed=seed) == ()


def test_last_bit_counts_and_shapes_are_checked():
    returns = synthetic_panel(2, n_sleeves=1, n_symbols=4, n_days=260).returns
    tiny = perturbation_leaks(lambda r: r.rolling(5).sum() * (1 + 1e-15 * np.sign(r.sum().sum())), returns, at=1)
    assert all(p.table == "targets" for p in tiny)
    with pytest.raises(InputError, match="dates of the returns"):
        perturbation_leaks(lambda r: r.dropna(), returns, at=1)
    with pytest.raises(InputError, match="inside the returns") as err:
        perturbation_leaks(lambda r: r, returns, at=["1990-01-01"])
    assert err.value.code == "BAD_DATE"


def test_reference_sleeves_and_detector_keep_their_word(futures):
    part = futures.select(start="2019-01-01", symbols=futures.symbols[::3])
    assert reference_leaks(part.returns, part.instruments, at=2) == ()


def test_every_default_sleeve_one_bar_early_is_proved(futures):
    part = futures.select(start="2009-01-01", symbols=futures.symbols[::3])

    def early(returns):
        made = reference_sleeves(returns, part.instruments)[0]
        return {k: w.reindex(returns.index).shift(-1) for k, w in made.items() if k in futures.sleeve_ids}

    assert {p.table for p in perturbation_leaks(early, part.returns, at=2)} == set(futures.sleeve_ids)


def test_smoothed_regimes_are_proved():
    from pil_research.estimators.regime import regime_features

    panel = synthetic_panel(9, n_sleeves=1, n_symbols=12, n_days=800)

    def full_sample(returns):
        x = regime_features(returns.to_numpy())
        ok = np.isfinite(x).all(axis=1)
        return pd.DataFrame(filter_regimes(fit_regimes(x[ok]), x), index=returns.index, columns=["a", "b", "c"])

    assert perturbation_leaks(full_sample, panel.returns, at=1)
    assert perturbation_leaks(lambda r: RegimeDetector(min_train=252).detect(r), panel.returns, at=2) == ()


def test_remedies_cover_every_channel():
    assert set(leaks.REMEDY) == {"direction", "size", "regime"}
