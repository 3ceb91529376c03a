"""The overfitting study and its report: noise, skill, leaks, the ledger, peers, the page and the run folder."""
from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pil_research.config import PILConfig
from pil_research.research import overfitting as o
from pil_research.research import overfitting_study as study_module
from pil_research.research.family import LAGS, family_of, family_tracks, track_name
from pil_research.research.overfitting_page import overfitting_html, write_overfitting_run
from pil_research.research.overfitting_study import (
    MARKER_CHANGES,
    FamilyRun,
    OverfittingStudy,
    axis_table,
    headline,
    judge_family,
    lag_facts,
    overfitting_checks,
    overfitting_study,
    pick_table,
    study_warnings,
    walk_family,
)
from pil_research.research.panel import Panel
from pil_research.research.synthetic_panel import synthetic_panel
from pil_research.research.trials import Trial, TrialLedger
from pil_research.research.walk_forward import Track, WalkForward, run_tracks
from pil_research.types import InputError

SMALL = {"n_groups": 5, "n_test": 2, "purge": 2, "embargo": 4}
RUN = "20260302T203000Z-3f9c1a"
FACTS = {"name": "random numbers", "source": "synthetic", "start": "2005-01-03", "end": "2010-10-01", "n_obs": 1500,
         "hash": "sha256:" + "0" * 64}


def random_run(edge: float = 0.0, *, n: int = 24, t: int = 1500, seed: int = 3, lag_gap: float = 0.0, mean: float = 0.0,
               shared: float = 0.6) -> FamilyRun:
    """A family of random returns; member 5, the base, is better by `edge` a year, and `lag_gap` worse at lag 1."""
    rng = np.random.default_rng(seed)
    family = {f"c{i:02d}": PILConfig().replace(**{"tilt.bound": i / 100}) for i in range(n)}
    dates, returns = pd.bdate_range("2005-01-03", periods=t), {}
    for lag in LAGS:
        x = 0.006 * (shared * rng.standard_normal((t, 1)) + np.sqrt(1 - shared**2) * rng.standard_normal((t, n))) + mean
        x[:, 5] += (edge - lag_gap * lag) * 0.006 / np.sqrt(252)
        returns[lag] = pd.DataFrame(x, index=dates, columns=list(family))
    return FamilyRun(members=family, base="c05", returns=returns, marker={g: r["c00"] for g, r in returns.items()})


@pytest.fixture()
def ledger(tmp_path: Path) -> TrialLedger:
    return TrialLedger(tmp_path / "trials.jsonl")


def judge(run: FamilyRun, ledger: TrialLedger, **options: object) -> OverfittingStudy:
    ledger.record_many([Trial(config=c, data="ab" * 32) for c in run.members.values()])
    return judge_family(run, ledger, **{"n_blocks": 8, "n_draws": 3, **options})  # type: ignore[arg-type]


# What PBO does


def test_noise_is_a_coin_toss_over_many_seeds() -> None:
    pbos = np.array([o.cscv(np.random.default_rng(s).standard_normal((480, 25)), 8).pbo for s in range(300)])
    error = pbos.std(ddof=1) / np.sqrt(len(pbos))
    assert abs(pbos.mean() - 0.5) < 3.5 * error and error < 0.02
    assert pbos.std() > 0.15  # one PBO of a family without skill says little: it lands anywhere


def test_one_truly_better_member_takes_it_to_zero(ledger: TrialLedger) -> None:
    found = judge(random_run(3.0), ledger)
    for s in found.lags.values():
        assert s.cscv.pbo < 0.05 and s.verdict.status == "PASS" and s.picks.index[0] == "c05" and s.picks["share"].iloc[0] > 0.9
    assert found.status == "PASS" and found.worse_dsr.deflation.dsr > 0.95


def test_pbo_falls_as_the_better_member_gets_better() -> None:
    pbos = [np.mean([o.cscv(random_run(edge, seed=s).returns[0], 8).pbo for s in range(12)]) for edge in (0.0, 1.0, 2.0, 4.0)]
    assert all(a > b for a, b in zip(pbos, pbos[1:], strict=False)) and pbos[-1] < 0.02


def test_a_flat_family_is_indifferent_whatever_its_pbo(ledger: TrialLedger) -> None:
    run = random_run(shared=0.99999, mean=0.001)
    found = judge(run, ledger)
    assert found.worse_pbo.verdict.spread < 0.05 and found.worse_pbo.verdict.status == "INDIFFERENT"
    assert found.status == "INDIFFERENT" and overfitting_checks(found)[0]["status"] == "inconclusive"
    assert "the choice does not matter" in headline(found)


# The worse lag


def test_each_gate_takes_its_worse_lag(ledger: TrialLedger) -> None:
    found = judge(random_run(4.0, lag_gap=4.0), ledger)
    assert found.lags[0].verdict.status == "PASS" and found.lags[0].deflation.status == "PASS"
    assert found.worse_dsr.lag == 1 and found.worse_dsr.deflation.status == "FAIL" and found.status == "FAIL"
    assert found.worse_pbo.lag == 1
    pbo, dsr = overfitting_checks(found)
    assert pbo["lag"] == dsr["lag"] == 1 and dsr["value"] == min(dsr["by_lag"]) and pbo["value"] == max(pbo["by_lag"])


def test_dsr_check_can_be_computed_again(ledger: TrialLedger) -> None:
    check = overfitting_checks(judge(random_run(1.0), ledger))[1]
    moments = [check[k] for k in ("sr", "n_obs", "skew", "kurtosis")]
    again = o.deflated_sharpe(*moments, check["n_trials"], check["var_trials"])
    assert again == pytest.approx(check["value"], abs=1e-12)
    assert o.deflated_sharpe(*moments, 10_000, check["var_trials"]) < check["value"]
    assert 1 <= check["n_effective"] <= check["n_trials"]


# The ledger


@pytest.fixture(scope="module")
def panel() -> Panel:
    return synthetic_panel(7, n_sleeves=3, n_symbols=8, n_days=420)


@pytest.fixture(scope="module")
def family() -> dict[str, PILConfig]:
    return family_of({"method": ["hrp", "erc"], "tilt": [0.0, 0.25], "vol_target": [0.08, 0.10]})


def test_every_member_is_on_the_ledger_and_counts_once(panel: Panel, family: dict[str, PILConfig], ledger: TrialLedger) -> None:
    ledger.record("cd" * 32, panel.fingerprint(), command="something else")
    found = overfitting_study(panel, PILConfig(), family, ledger, n_blocks=4, n_draws=2, cpcv=SMALL)
    assert len(family) == 8 and found.n_ledger == ledger.count() == 1 + 8 + 1  # 1/N-risk walked along
    assert found.worse_dsr.deflation.n_trials == 10
    again = overfitting_study(panel, PILConfig(), family, ledger, n_blocks=4, n_draws=2, cpcv=SMALL)
    assert again.n_ledger == 10 and len(ledger.entries()) == 1 + 2 * 9
    assert again.lags[0].cscv.logits.tolist() == found.lags[0].cscv.logits.tolist()
    assert set(found.run.returns[0]) == set(family) and not found.run.returns[0].equals(found.run.returns[1])


def test_the_attempt_counts_even_if_the_walk_fails(panel: Panel, family: dict[str, PILConfig], ledger: TrialLedger,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> WalkForward:
        assert ledger.count() == 9
        raise InputError("no", code="X")
    monkeypatch.setattr(study_module, "run_tracks", fail)
    with pytest.raises(InputError, match="no"):
        walk_family(panel, PILConfig(), family, ledger)
    assert ledger.count() == 9


def test_a_smaller_count_is_refused(ledger: TrialLedger) -> None:
    run = random_run()
    with pytest.raises(InputError, match="holds no trials"):
        judge_family(run, ledger, n_blocks=4, n_draws=1)
    ledger.record_many([Trial(config=f"{i:064x}", data="ab" * 32) for i in range(5)])
    with pytest.raises(InputError, match="must cover the family of 24") as err:
        judge_family(run, ledger, n_blocks=4, n_draws=1)
    assert err.value.code == "TRIALS_UNDERCOUNTED"
    with pytest.raises(InputError, match="at least the trial ledger's count of 29, got 24"):
        judge(run, ledger, n_trials=24)
    assert judge(run, ledger, n_trials=500).worse_dsr.deflation.n_trials == 500


def test_a_short_history_is_refused(ledger: TrialLedger) -> None:
    with pytest.raises(InputError, match="at least 840 sessions.*got 839") as err:
        judge(random_run(t=839), ledger)
    assert err.value.code == "TOO_SHORT"
    judge(random_run(t=840, n=4 + 2), ledger)


def test_more_trials_lower_the_dsr(ledger: TrialLedger) -> None:
    run = random_run(1.0)
    before = judge(run, ledger).worse_dsr.deflation.dsr
    ledger.record_many([Trial(config=f"{i:064x}", data="ab" * 32) for i in range(900)])
    assert judge(run, ledger).worse_dsr.deflation.dsr < before


def test_the_floor_asks_more_of_a_family_of_clones(ledger: TrialLedger) -> None:
    found = judge(random_run(1.5, shared=0.999, mean=0.0003), ledger)
    s, f = found.worse_dsr, lag_facts(found.worse_dsr)
    d = s.deflation
    assert f["trial_spread"] < f["standard_error"] and s.dsr_floor < d.dsr
    at_error = o.deflated_sharpe(d.sr, d.n_obs, d.skew, d.kurt, d.n_trials, s.standard_error**2)
    assert s.dsr_floor == pytest.approx(at_error, abs=1e-12)
    said = any("members are alike" in w for w in study_warnings(found))
    assert said == (d.status == "PASS" and s.dsr_floor < 0.95)
    wide = random_run(1.5)
    for k, name in enumerate(wide.members):
        for g in LAGS:
            wide.returns[g][name] += k * 2e-5
    w = judge(wide, ledger).worse_dsr
    assert w.dsr_floor == w.deflation.dsr  # spread beyond the error: the floor does nothing


def test_a_base_that_is_rarely_picked_is_said(ledger: TrialLedger) -> None:
    run = random_run(3.0)
    assert not any("PBO judges" in w for w in study_warnings(judge(run, ledger)))
    other = replace(run, base="c07")
    assert "most often c05" in study_warnings(judge(other, ledger))[0]


def test_the_base_must_be_a_member(panel: Panel, family: dict[str, PILConfig], ledger: TrialLedger) -> None:
    with pytest.raises(InputError, match="must be a member of the family of 8") as err:
        walk_family(panel, PILConfig().replace(**{"tilt.bound": 0.3}), family, ledger)
    assert err.value.code == "BASE_NOT_IN_FAMILY" and ledger.count() == 0


def test_a_family_walked_together_is_its_members_walked_alone(panel: Panel, family: dict[str, PILConfig],
                                                              ledger: TrialLedger) -> None:
    run = walk_family(panel, PILConfig(), family, ledger)
    name = list(family)[3]
    alone = run_tracks(panel, [Track(name="x", config=family[name], lag=1)]).returns["x"]
    np.testing.assert_allclose(run.returns[1][name], alone, atol=1e-12)
    marker = run_tracks(panel, [Track(name="x", config=PILConfig().replace(**MARKER_CHANGES))]).returns["x"]
    np.testing.assert_allclose(run.marker[0], marker, atol=1e-12)


def test_members_that_never_hold_anything_are_named(monkeypatch: pytest.MonkeyPatch, panel: Panel, family: dict[str, PILConfig],
                                                    ledger: TrialLedger) -> None:
    real = run_tracks

    def dead(*args: object, **options: object) -> WalkForward:
        w = real(*args, **options)  # type: ignore[arg-type]
        return replace(w, returns=w.returns.assign(**{track_name(list(family)[2], 1): 0.0}))
    monkeypatch.setattr(study_module, "run_tracks", dead)
    found = overfitting_study(panel, PILConfig(), family, ledger, n_blocks=4, n_draws=2, cpcv=SMALL)
    assert found.run.dropped == (list(family)[2],) and len(found.run.members) == 7
    assert "1 members never held anything" in " ".join(study_warnings(found)) and found.worse_dsr.deflation.n_trials == 9


# A leak


Rule = Callable[[pd.DataFrame], pd.DataFrame]
HONEST: Rule = lambda r: np.sign(r.rolling(10, min_periods=1).mean()).fillna(0.0)  # noqa: E731
PEEKING: Rule = lambda r: np.sign(r.shift(-1)).fillna(0.0)  # noqa: E731  the target of day d is tomorrow's return


def rebuilt(panel: Panel, rule: Rule, changed_from: int | None = None) -> Panel:
    """The panel with one sleeve made by `rule`, from returns that are other ones from row `changed_from` on."""
    returns = panel.returns.copy()
    if changed_from is not None:
        rng = np.random.default_rng(9)
        returns.iloc[changed_from:] = 0.01 * rng.standard_normal(returns.iloc[changed_from:].shape)
    first = panel.sleeve_ids[0]
    return replace(panel, returns=returns, targets={**panel.targets, first: rule(returns)})


def decisions(panel: Panel, family: dict[str, PILConfig], t: int) -> pd.DataFrame:
    """What was decided up to session `t`, for every member and lag."""
    w = run_tracks(panel, family_tracks(family), end=panel.dates[t])
    parts = [w.turnover, w.gross_exposure, w.net_exposure, w.leverage, *w.sleeve_weights.values()]
    return pd.concat(parts, axis=1)


@pytest.mark.parametrize(("rule", "moves"), [(HONEST, False), (PEEKING, True)])
def test_a_member_chosen_by_look_ahead_is_caught_by_changing_the_future(panel: Panel, rule: Rule, moves: bool) -> None:
    family = family_of({"method": ["hrp", "erc"]})
    t = 330
    was, now = (decisions(rebuilt(panel, rule, cut), family, t) for cut in (None, t))
    assert was.index[-1] == panel.dates[t]
    assert was.equals(now) is not moves
    assert was.iloc[:-2].equals(now.iloc[:-2])  # what is not near t stays as it was either way


def test_pbo_cannot_see_the_leak(panel: Panel) -> None:
    family = family_of({"method": ["hrp", "erc", "equal"], "tilt": [0.0, 0.25]})
    tracks = family_tracks(family, (0,))
    honest = run_tracks(rebuilt(panel, HONEST), tracks).returns
    leak = run_tracks(rebuilt(panel, PEEKING), tracks[:1]).returns.set_axis(["leak"], axis=1)
    r = o.cscv(honest.join(leak), 4)
    assert r.pbo == 0.0 and {r.names[i] for i in r.is_best} == {"leak"}  # looks like skill: only data can tell


# Peers


MATRIX = 0.01 * np.random.default_rng(11).standard_normal((205, 9))


def test_agrees_with_the_figures_other_packages_gave() -> None:
    # purgedcv 0.1.11 and sharpe-gate 0.1.1 call the strict figure PBO; measured on default_rng(11)
    even = o.cscv(0.01 * np.random.default_rng(11).standard_normal((200, 9)), 8)
    assert even.pbo_strict == pytest.approx(0.17142857142857143, abs=1e-15)  # both packages
    assert even.pbo == pytest.approx(0.22857142857142856, abs=1e-15)  # the paper's share of logits <= 0
    assert even.slope == pytest.approx(0.009666805030663542, abs=1e-12)  # purgedcv
    odd = o.cscv(MATRIX, 8)  # they keep other rows: 0.1286 (purgedcv, uneven blocks), 0.1714 (sharpe-gate, newest dropped)
    assert odd.n_dropped == 5 and odd.pbo_strict == pytest.approx(0.07142857142857142, abs=1e-15)  # both, given our rows
    assert odd.slope == pytest.approx(-0.49004011660894226, abs=1e-12)


def test_agrees_with_purgedcv() -> None:
    peer = pytest.importorskip("purgedcv", reason="purgedcv is not installed; its figures are pinned in the test above")
    ours = o.cscv(MATRIX, 8)
    theirs = peer.probability_of_backtest_overfitting(MATRIX[5:].T, 8)
    np.testing.assert_allclose(theirs.logits[::-1], ours.logits, atol=1e-12)
    assert theirs.pbo == ours.pbo_strict and theirs.slope == pytest.approx(ours.slope, abs=1e-12)


def test_agrees_with_sharpe_gate() -> None:
    peer = pytest.importorskip("sharpe_gate.overfit", reason="sharpe-gate is not installed; its figures are pinned above")
    ours = o.cscv(MATRIX, 8)
    theirs = peer.pbo_cscv(MATRIX[5:], n_splits=8)
    np.testing.assert_allclose(theirs.logits, ours.logits, atol=1e-12)
    assert theirs.pbo == ours.pbo_strict


def test_paths_of_the_choice_are_skfolios() -> None:
    skfolio = pytest.importorskip("skfolio.model_selection")
    run, c = random_run(1.0), study_module.CPCV_SETTINGS
    cv = skfolio.CombinatorialPurgedCV(n_folds=c["n_groups"], n_test_folds=c["n_test"], purged_size=c["purge"],
                                       embargo_size=c["embargo"])
    x = run.returns[0].to_numpy()
    ours = o.cpcv_select(x, **c)
    for k, (train, _) in enumerate(cv.split(x)):
        best = (x[train].mean(0) / x[train].std(0, ddof=1)).argmax()
        assert ours.chosen[k] == best and ours.n_train[k] == len(train)
    assert len(ours.sharpe) == 55


# Tables


def test_pick_table_counts_every_split(ledger: TrialLedger) -> None:
    found = judge(random_run(), ledger)
    s = found.lags[0]
    all_of_them = pick_table(s.cscv, found.run.returns[0], "c05", most=100)
    assert all_of_them["share"].sum() == pytest.approx(1.0) and "c05" in all_of_them.index
    rare = all_of_them.index[all_of_them["share"] > 0.0][-1]  # a base below the table's end keeps what its wins were
    pd.testing.assert_series_equal(pick_table(s.cscv, found.run.returns[0], rare, most=1).loc[rare], all_of_them.loc[rare])
    assert len(s.picks) in (10, 11) and (s.picks["share"].iloc[:10].diff().dropna() <= 0).all()
    top = s.picks.index[0]
    won = s.cscv.is_best == s.cscv.names.index(top)
    assert s.picks["is_sharpe"][top] == pytest.approx(s.cscv.is_perf[won].mean() * np.sqrt(252))
    assert s.picks["median_rank"][top] == pytest.approx(np.median(s.cscv.omega[won]) * 25)
    assert s.picks["full_rank"].between(1, 24).all()


def test_axis_table_averages_over_members() -> None:
    members = family_of({"method": ["hrp", "equal"], "tilt": [0.0, 0.25], "lookback": [126, 252]})
    sharpes = pd.DataFrame({"lag0": np.arange(6.0), "lag1": 1.0}, index=list(members))
    table = axis_table(members, sharpes)
    assert table["members"]["method = hrp"] == 4 and table["members"]["method = equal"] == 2
    assert table["members"]["lookback = 126"] == 2 and "variant = direct" in table.index
    equal = [i for i, n in enumerate(members) if n.startswith("equal")]
    assert table["lag0"]["method = equal"] == np.mean(equal) and table["most"]["method = equal"] == max(equal)


# Page and folder


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> OverfittingStudy:
    return judge(random_run(0.5, t=1503), TrialLedger(tmp_path_factory.mktemp("l") / "t.jsonl"))


def test_the_page_says_the_numbers(example: OverfittingStudy) -> None:
    page = overfitting_html(example, FACTS, {"run_id": RUN})
    assert len(page.encode()) < 500_000 and page.count("<h1") == 1 and page.count("<svg") == 5
    f = lag_facts(example.worse_pbo)
    for said in (example.status, f"PBO {f['pbo']:.2f}", "24 configurations", "1,503 sessions 2005-01-03", "random numbers",
                 "The oldest 7 sessions are left out", RUN, "All 24 members", "synthetic"):
        assert said in page, said
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)


def test_the_run_folder_is_complete(example: OverfittingStudy, tmp_path: Path) -> None:
    envelope = write_overfitting_run(example, FACTS, PILConfig(), tmp_path, run_id=RUN, params={"blocks": 8})
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8")) == envelope
    assert [c["id"] for c in envelope["checks"]] == ["overfitting.pbo", "overfitting.dsr"]
    assert {"sr", "n_obs", "skew", "kurtosis", "var_trials", "n_trials", "n_effective"} <= set(envelope["checks"][1])
    assert envelope["verdict"]["action"] == "none" and envelope["verdict"]["word"] == example.status
    for lag in LAGS:
        frame = pd.read_parquet(tmp_path / "data" / f"family_returns_lag{lag}.parquet")
        assert frame.shape == (1503, 24)
        again = o.cscv(frame, 8)
        assert again.pbo == pytest.approx(envelope["tables"][f"lag{lag}"]["facts"]["pbo"], abs=0.02)
    table = envelope["tables"]["lag0"]
    assert set(table["blocks"]) == {"8", "10", "12", "16"} and len(table["cpcv_sharpe"]) == 55


def test_the_report_runs_from_its_template(tmp_path: Path) -> None:
    from pil_research.research.panel_files import write_panel
    from pil_research.research.runner import run_report

    small = tmp_path / "family.toml"
    small.write_text('[axes]\nmethod = ["hrp", "erc", "equal"]\ntilt = [0.0, 0.25]\n[smoke]\nmethod = ["hrp", "equal"]\n',
                     encoding="utf-8")
    write_panel(synthetic_panel(7, n_sleeves=3, n_symbols=8, n_days=1150), tmp_path / "panel")
    ledger = tmp_path / "ledger.jsonl"
    out = run_report("overfitting", {"data": str(tmp_path / "panel"), "family": str(small), "members": "smoke", "blocks": 4,
                                     "draws": 2, "ledger": str(ledger)}, runs=tmp_path / "runs", quiet=True)
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert result["report"] == "overfitting" and result["checks"][0]["n_members"] == 4
    assert TrialLedger(ledger).count() == result["checks"][1]["n_trials"] == 4
    assert {e.trial.command for e in TrialLedger(ledger).entries() if e.trial} == {"report overfitting"}
