"""The sequential test, both books in one account, rules and verdict, checklist, page, journal and command of the shadow run."""
from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from desk import DAYS, IDS, NAMES, Desk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import nct, norm, t

from pil_research.config import PILConfig
from pil_research.live import StateStore
from pil_research.live.archive import whole_decision
from pil_research.research import sequential as seq
from pil_research.research.cutover import approval_items, checklist_line, cutover_checklist
from pil_research.research.data import synthetic_panel
from pil_research.research.ladder_result import panel_facts
from pil_research.research.legacy import LegacyHistory
from pil_research.research.panel import Panel
from pil_research.research.report import check_envelope
from pil_research.research.shadow import (
    FAIL,
    OPEN,
    PASS,
    ShadowLimits,
    cap_breaches,
    in_band,
    judge_shadow,
    rule_history,
    sequences,
    verdict_of,
)
from pil_research.research.shadow_books import (
    ShadowBooks,
    align_weights,
    keep_accounts,
    read_weights,
    recent,
    replay_journal,
    replay_panel,
)
from pil_research.research.shadow_page import shadow_checks, shadow_html, write_shadow_run
from pil_research.research.walk_forward import Track, run_tracks
from pil_research.types import InputError

NOW = datetime(2026, 3, 2, tzinfo=UTC)


# ---------------------------------------------------------------------------------------------- the sequential test


def test_the_boundary_is_the_published_one() -> None:
    """Targets of the authors' software (confseq, R reference implementation), alpha 0.05, tuned to v = 100."""
    c2 = seq.prior_variance(100, 0.05)
    assert 1 / c2 == pytest.approx(12.60056, abs=1e-5)
    assert float(seq.normal_mixture_bound(100, 0.05, c2)) == pytest.approx(30.35209, abs=1e-5)
    log_martingale = 0.5 * np.log(1 / (1 + 100 * c2)) + 10.0**2 / (2 * (100 + 1 / c2))
    assert log_martingale == pytest.approx(-0.6510052, abs=1e-5)


def test_robbins_1970_with_a_squared_6() -> None:
    """P(|S_n| >= sqrt((n + m)(a^2 + log(1 + n / m))) for some n) <= exp(-a^2 / 2): a^2 = 6, m = 1 is about 0.05."""
    n = np.array([1.0, 10.0, 100.0])
    assert seq.normal_mixture_bound(n, np.exp(-3.0), 1.0) == pytest.approx(np.sqrt((n + 1) * (6 + np.log(n + 1))))


@pytest.mark.parametrize("n,tstat,c2", [(5, 1.3, 0.5), (20, 2.5, 0.24), (40, 3.5, 0.24), (40, 0.0, 1.0)])
def test_evidence_is_the_bayes_factor_of_a_normal_prior_on_the_effect(n: int, tstat: float, c2: float) -> None:
    """Gönen et al. (2005): non-central t averaged over N(0, c2), over the central t."""
    top = quad(lambda d: nct.pdf(tstat, n - 1, np.sqrt(n) * d) * norm.pdf(d, scale=np.sqrt(c2)), -6, 6, limit=200)[0]
    assert float(np.exp(seq.log_e_value(tstat**2, n, c2))) == pytest.approx(top / t.pdf(tstat, n - 1), rel=1e-6)


@given(st.integers(4, 5000), st.sampled_from([0.01, 0.025, 0.05, 0.2]), st.integers(5, 3000))
@settings(max_examples=60, deadline=None)
def test_threshold_is_where_the_evidence_reaches_one_over_alpha(n: int, alpha: float, tune: int) -> None:
    c2 = seq.prior_variance(tune, alpha)
    at = float(seq.t_threshold(n, alpha, c2))
    if np.isfinite(at):
        assert float(np.exp(seq.log_e_value(at * at, n, c2))) == pytest.approx(1 / alpha, rel=1e-6)
    else:
        assert float(np.exp(seq.log_e_value(1e12, n, c2))) <= 1 / alpha * (1 + 1e-6)


def test_threshold_becomes_the_known_variance_boundary() -> None:
    c2, n = seq.prior_variance(1e6, 0.05), 1e6
    assert float(seq.t_threshold(n, 0.05, c2)) == pytest.approx(float(seq.normal_mixture_bound(n, 0.05, c2)) / 1e3, rel=1e-4)


def test_long_run_ratio_is_newey_west_on_every_beginning() -> None:
    x = np.random.default_rng(3).standard_normal((2, 40)).cumsum(axis=1)
    got = seq.long_run_ratio(x, lags=5)
    for n in (8, 23, 40):
        e = x[1, :n] - x[1, :n].mean()
        rho = [float(e[j:] @ e[: n - j]) / float(e @ e) for j in range(1, 6)]
        assert got[1, n - 1] == pytest.approx(max(1.0, 1 + 2 * sum((1 - j / 6) * r for j, r in enumerate(rho, 1))))


@given(st.floats(-3, 3), st.floats(0.01, 50))
@settings(max_examples=25, deadline=None)
def test_sequence_moves_and_scales_with_the_data(shift: float, scale: float) -> None:
    x = np.random.default_rng(5).standard_t(5, 45)
    a, b = seq.confidence_sequence(x), seq.confidence_sequence(shift + scale * x)
    assert b.low[19:] == pytest.approx(shift + scale * a.low[19:], rel=1e-6, abs=1e-9)
    assert b.high[-1] - b.low[-1] == pytest.approx(scale * (a.high[-1] - a.low[-1]), rel=1e-6)
    assert np.isnan(a.low[:19]).all() and (a.high[19:] > a.low[19:]).all()


def test_evidence_and_interval_agree_and_a_constant_is_seen_at_once() -> None:
    x = 1.5 + np.random.default_rng(8).standard_t(4, 60)
    s = seq.confidence_sequence(x, alpha=0.025)
    assert ((s.evidence[19:] >= 1 / 0.025) == (s.excludes_zero[19:] != 0)).all() and s.excludes_zero[-1] == 1
    assert seq.first_crossing(x[None], alpha=0.025)[0] == int(np.argmax(s.excludes_zero != 0)) + 1
    none, some = seq.confidence_sequence(np.zeros(30)), seq.confidence_sequence(np.full(30, -0.2))
    assert not none.excludes_zero.any() and none.evidence[-1] == 1.0
    assert (some.excludes_zero[19:] == -1).all() and np.isinf(some.evidence[-1])


@pytest.mark.parametrize("x", [[], [1.0, np.nan], [[1.0, 2.0]], [np.inf, 1.0]])
def test_sequence_refuses_what_is_no_series(x: Any) -> None:
    with pytest.raises(InputError, match="finite numbers"):
        seq.confidence_sequence(x)
    with pytest.raises(InputError, match="alpha in"):
        seq.prior_variance(40, 1.0)


def test_daily_peeking_keeps_the_promise_over_a_shadow_run_and_the_t_test_does_not() -> None:
    table = seq.peeking_table(alpha=0.025, sessions=40, draws=4000)
    assert (table["sequence"] <= 0.025 + 2 * table["error"]).all()
    assert (table["sequence"].drop("lognormal, skewness 2") <= 0.0175).all()  # fat tails, clusters, autocorrelation to 0.2
    assert (table["t-test daily"] > 0.05).all()


def test_power_and_years() -> None:
    rng = np.random.default_rng(2)
    strong = seq.first_crossing(1.0 + rng.standard_normal((800, 40)), alpha=0.025)
    weak = seq.first_crossing(0.02 + rng.standard_normal((800, 40)), alpha=0.025)
    assert (strong > 0).mean() > 0.95 and np.median(strong[strong > 0]) <= 22 and (weak > 0).mean() < 0.03
    assert seq.information_ratio(0.3, 0.5) == pytest.approx(0.3)
    years = seq.sessions_needed(seq.information_ratio(0.3, 0.6) / np.sqrt(252), alpha=0.025) / 252
    assert 90 < years < 100 and seq.sessions_needed(0.0) == np.inf
    n = seq.sessions_needed(0.15, alpha=0.05)
    seen = seq.first_crossing(0.15 + rng.standard_normal((400, int(2 * n))), tune=n, lags=0)
    assert 0.4 < ((seen > 0) & (seen <= n)).mean() < 0.75  # half have been seen by then, a little more with earlier looks


@pytest.mark.slow
def test_ten_years_of_daily_peeking() -> None:
    table = seq.peeking_table(alpha=0.025, sessions=2520, draws=2000)
    calm = ["normal", "t(4)", "t(3)", "GARCH, t(5)"]
    assert (table.loc[calm, "sequence"] <= 0.025).all()
    assert table.loc["t(5), autocorrelation 0.1", "sequence"] <= 0.035
    assert table.loc["t(5), autocorrelation 0.2", "sequence"] <= 0.060
    assert (table["t-test daily"] > 0.2).all()


# -------------------------------------------------------------------------------------------------------- the books


@pytest.fixture(scope="module")
def panel() -> Panel:
    return synthetic_panel(7, n_sleeves=3, n_symbols=6, n_days=700)


@pytest.fixture(scope="module")
def books(panel: Panel) -> ShadowBooks:
    return replay_panel(panel, PILConfig(), sessions=45, warm_up=60, other="legacy")


def test_replay_is_the_walk_forward(panel: Panel, books: ShadowBooks) -> None:
    start = books.ours.index[0]
    w = run_tracks(panel, [Track(name="x", config=PILConfig())], start=start, keep_exposures=("x",))
    assert float((w.exposures["x"] - books.ours).abs().max().max()) < 1e-12
    before = panel.dates[panel.dates.get_loc(start) - 1]  # a day in cash makes the account pay for its opening, as the walk does
    asked = pd.concat([pd.DataFrame(0.0, index=[before], columns=books.ours.columns), books.ours])
    paid = keep_accounts(LegacyHistory(panel, None, PILConfig()), {"ours": asked})
    assert float((w.returns["x"] - paid.net["ours|0"].loc[w.dates]).abs().max()) < 1e-12
    assert float((w.turnover["x"] - paid.turnover["ours|0"].loc[w.dates]).abs().max()) < 1e-12
    late = w.dates[2:]  # without it only the first drift and the size of the account differ
    assert float((w.returns["x"] - books.accounts.net["ours|0"]).loc[late].abs().max()) < 1e-7
    assert books.facts["traded"].iloc[1:].to_numpy() == pytest.approx(w.turnover["x"].iloc[1:].to_numpy(), abs=1e-12)


def test_later_bars_change_no_earlier_book(panel: Panel, books: ShadowBooks) -> None:
    cut = books.sessions[20]
    moved = panel.returns.copy()
    moved.loc[moved.index >= cut] *= -3.0
    again = replay_panel(replace(panel, returns=moved), PILConfig(), sessions=45, warm_up=60, other="legacy")
    same = books.ours.index <= cut
    assert (again.ours[same].to_numpy() == books.ours[same].to_numpy()).all()
    assert (again.other[same].to_numpy() == books.other[same].to_numpy()).all()
    assert not (again.ours.iloc[-1].to_numpy() == books.ours.iloc[-1].to_numpy()).all()


def test_every_name_short_of_its_target_has_its_reason_counted(books: ShadowBooks) -> None:
    f = books.facts
    assert ((f["skipped_band"] >= 0) & (f["skipped_cost"] >= 0) & (f["skipped_band"] + f["skipped_cost"] <= 6)).all()
    assert f["skipped_band"].sum() > 0 and (f["missed"] == 0).all() and (f["age"] >= 1).all()


def test_lag_one_earns_the_next_bar(books: ShadowBooks, panel: Panel) -> None:
    held = books.ours.iloc[10] * (1 + panel.returns.loc[books.ours.index[10]].fillna(0.0))
    day = books.ours.index[11]
    grown = 1 + books.accounts.net["ours|1"].iloc[10]
    got = books.accounts.gross_return["ours|1"].iloc[11]
    assert got == pytest.approx(float((held / grown) @ panel.returns.loc[day].fillna(0.0)), abs=2e-4)


def test_cutting_the_panel_changes_nothing_a_decision_sees() -> None:
    big = synthetic_panel(3, n_sleeves=3, n_symbols=6, n_days=1300)
    assert len(recent(big, PILConfig(), 60).dates) == 960
    assert recent(big, PILConfig().replace(**{"covariance.window": 500}), 60) is big
    a = replay_panel(big, PILConfig(), sessions=20, warm_up=40, other="legacy")
    w = run_tracks(big, [Track(name="x", config=PILConfig())], start=a.ours.index[0], keep_exposures=("x",))
    assert float((w.exposures["x"] - a.ours).abs().max().max()) < 1e-9


# ------------------------------------------------------------------------------------------------- recorded weights


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_recorded_weights_give_the_book_they_came_from(books: ShadowBooks, panel: Panel, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"desk{suffix}"
    table = books.other.rename_axis("date").reset_index()
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    again = replay_panel(panel, PILConfig(), sessions=45, warm_up=60, other=str(path))
    assert again.other_name == "desk"
    assert float((again.accounts.net - books.accounts.net).abs().max().max()) < 1e-12


def test_panel_brings_its_other_book_and_gaps_drift(books: ShadowBooks, panel: Panel) -> None:
    table = books.other.reindex(panel.dates)
    gap = books.sessions[5]
    table.loc[gap] = np.nan
    again = replay_panel(replace(panel, other_book=table), PILConfig(), sessions=45, warm_up=60)
    assert again.other_name == "other_book" and "no record on 1 of" in again.notes[0]
    assert again.accounts.turnover["other|0"][gap] == 0.0
    before = books.sessions[4]
    drifted = again.other.loc[before] * (1 + panel.returns.loc[before].fillna(0.0)) / (1 + again.accounts.net["other|0"][before])
    assert again.other.loc[gap].to_numpy() == pytest.approx(drifted.to_numpy())


def _bad(kind: str, panel: Panel) -> pd.DataFrame:
    w = pd.DataFrame(0.1, index=panel.dates[-10:], columns=list(panel.symbols))
    if kind == "UNKNOWN_SYMBOL":
        return w.assign(ABC=0.2)
    if kind == "TWICE":
        return pd.concat([w, w])
    if kind == "NON_FINITE":
        return w.assign(**{panel.symbols[0]: np.inf})
    return w.set_axis(w.index - pd.Timedelta(days=20_000), axis=0)


@pytest.mark.parametrize("code", ["UNKNOWN_SYMBOL", "TWICE", "NON_FINITE", "NO_OVERLAP"])
def test_recorded_weights_that_cannot_be_compared_are_refused(panel: Panel, code: str) -> None:
    with pytest.raises(InputError) as e:
        align_weights(_bad(code, panel), panel.dates[-10:], panel.symbols, "desk")
    assert e.value.code == code
    empty = pd.DataFrame(0.0, index=panel.dates[-3:], columns=["ABC"])  # a name that is never held is no trouble
    assert (align_weights(empty, panel.dates[-3:], panel.symbols, "desk") == 0.0).all().all()


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("date,ES\n2024-01-02,much\n")
    (tmp_path / "b.csv").write_text("date,ES\nsoon,0.1\n")
    for name, code in (("a.csv", "NOT_NUMERIC"), ("b.csv", "BAD_DATE"), ("c.csv", "NO_FILE"), ("d.txt", "NO_FILE")):
        with pytest.raises(InputError) as e:
            read_weights(tmp_path / name)
        assert e.value.code == code
    with pytest.raises(InputError, match="ask for fewer"):
        replay_panel(synthetic_panel(1, n_sleeves=2, n_symbols=4, n_days=400), PILConfig(), sessions=40, warm_up=252)


# ----------------------------------------------------------------------------------------------------- the verdict


def beside_itself(b: ShadowBooks) -> ShadowBooks:
    tables = {k: getattr(b.accounts, k) for k in ("net", "gross_return", "costs", "turnover")}
    twin = {k: v.assign(**{f"other|{lag}": v[f"ours|{lag}"] for lag in (0, 1)}) for k, v in tables.items()}
    zero = b.active_vol.assign(other=b.active_vol["ours"], difference=0.0)
    return replace(b, other=b.ours, other_name="itself", accounts=replace(b.accounts, **twin), active_vol=zero)


def test_a_book_beside_itself_is_never_decided_on_turnover_or_returns(books: ShadowBooks) -> None:
    r = judge_shadow(beside_itself(books))
    assert (r.history["turnover"] == OPEN).all() and (r.history["return"] == PASS).all()
    assert (r.summary["difference"] == 0.0).all() and r.verdict.word in ("UNDECIDED", "FAIL")


def run_of(word: str, books: ShadowBooks, days: int = 45) -> ShadowBooks:
    """The books with numbers that lead to a word."""
    at, rng = books.ours.index, np.random.default_rng(1)
    net, turn, vol, facts = books.accounts.net.copy(), books.accounts.turnover.copy(), books.active_vol.copy(), books.facts.copy()
    facts["goal"], facts["missed"] = 0.05, 0.0
    net[:] = 0.05 / np.sqrt(252) * rng.standard_normal((len(at), 4))
    net["ours|1"], net["other|1"] = net["ours|0"], net["other|0"]
    vol["difference"] = 0.05 * np.sqrt(2)
    turn["ours|0"] = 0.01 + 0.002 * rng.standard_normal(len(at))
    turn["other|0"] = {"UNDECIDED": 0.0, "NOT YET": 0.0}.get(word, 0.03) + 0.01 + 0.002 * rng.standard_normal(len(at))
    if word == "harm":
        net["ours|1"] = net["other|1"] - 0.003 + 0.0005 * rng.standard_normal(len(at))
    if word == "trades more":
        turn["ours|0"], turn["other|0"] = turn["other|0"], turn["ours|0"]
    if word == "wild":
        net["ours|0"] *= 2.5
    accounts = replace(books.accounts, net=net, turnover=turn)
    out = replace(books, accounts=accounts, active_vol=vol, facts=facts)
    keep = at[: int((at < books.first).sum()) + days]
    cut = {k: getattr(out, k).loc[keep] for k in ("ours", "other", "facts", "active_vol")}
    tables = {k: getattr(accounts, k).loc[keep] for k in ("net", "gross_return", "costs", "turnover")}
    return replace(out, **cut, accounts=replace(accounts, **tables))


@pytest.mark.parametrize("word,days,expected,day", [
    ("PASS", 45, "PASS", 20), ("PASS", 19, "NOT YET", 19), ("UNDECIDED", 45, "UNDECIDED", 40), ("NOT YET", 23, "NOT YET", 23),
    ("harm", 45, "FAIL", None), ("trades more", 45, "FAIL", 20), ("wild", 45, "FAIL", 40)])
def test_verdicts_and_their_days(books: ShadowBooks, word: str, days: int, expected: str, day: int | None) -> None:
    r = judge_shadow(run_of(word, books, days))
    assert r.verdict.word == expected, (r.verdict, r.rules)
    assert day is None or r.verdict.day == day
    assert f"day {r.verdict.day} of 40" in r.verdict.headline
    assert word != "harm" or r.verdict.failed == ("return",)
    assert word != "wild" or "volatility" in r.verdict.failed


def test_a_decision_stands_whatever_comes_after_it(books: ShadowBooks) -> None:
    b = run_of("PASS", books)
    first = judge_shadow(b).verdict
    net = b.accounts.net.copy()
    net.loc[b.sessions[41]:] *= 20.0
    later = judge_shadow(replace(b, accounts=replace(b.accounts, net=net))).verdict
    assert (first.word, first.day) == (later.word, later.day) == ("PASS", 20)


def test_a_broken_cap_fails_even_after_a_pass(books: ShadowBooks) -> None:
    b = run_of("PASS", books)
    ours = b.ours.copy()
    ours.loc[b.sessions[43], ours.columns[0]] = 0.5 * PILConfig().caps.name * 1.2
    b = replace(b, ours=ours)
    assert cap_breaches(b)[b.sessions[43]] >= 1
    v = judge_shadow(b).verdict
    assert v.word == "FAIL" and v.day == 44 and "caps" in v.failed


def test_missed_slots_fail_a_journal_and_are_not_tested_by_a_replay(books: ShadowBooks) -> None:
    b = run_of("PASS", books)
    facts = b.facts.copy()
    facts.loc[b.sessions[7], "missed"] = 1.0
    evidence = dict.fromkeys(("decisions", "rows", "held", "differences", "epochs", "killed", "head", "standing"), 0)
    journal = judge_shadow(replace(b, facts=facts, kind="journal", evidence=evidence))
    assert (journal.verdict.word, journal.verdict.day, journal.verdict.failed) == ("FAIL", 8, ("slots",))
    replayed = judge_shadow(replace(b, facts=facts))
    assert replayed.verdict.word == "PASS" and replayed.rules["status"]["slots"] == "not tested"


def test_volatility_counts_only_sessions_with_something_intended(books: ShadowBooks) -> None:
    b = run_of("PASS", books)
    facts = b.facts.assign(goal=0.0)
    r = judge_shadow(replace(b, facts=facts))
    assert not in_band(r.daily, r.limits)["counts"].any() and np.isnan(r.rules["value"]["volatility"])
    assert r.verdict.word == "FAIL" and "volatility" in r.verdict.failed  # nothing was shown in forty sessions


def test_verdict_reads_only_the_sessions_up_to_its_day(books: ShadowBooks) -> None:
    r = judge_shadow(run_of("PASS", books))
    for n in (5, 19, 20, 33):
        part = r.daily.iloc[:n]
        again = verdict_of(rule_history(part, sequences(part, r.limits), r.limits, "replay"), r.limits)
        assert again.word == ("NOT YET" if n < 20 else "PASS") and again.day == min(n, 20)
    with pytest.raises(InputError, match="minimum <= horizon"):
        ShadowLimits(minimum=50)


def test_history_holds_only_the_three_marks(books: ShadowBooks) -> None:
    r = judge_shadow(books)
    assert set(np.unique(r.history.drop(columns="slots").to_numpy())) <= {PASS, OPEN, FAIL} and r.history["slots"].isna().all()


# ------------------------------------------------------------------------------------------- checklist, page, folder


def test_checklist_takes_nothing_on_trust(books: ShadowBooks, tmp_path: Path) -> None:
    r = judge_shadow(run_of("PASS", books))
    items = {c.item: c for c in cutover_checklist(r, approval="", now=NOW)}
    assert items["Shadow run passed"].status == "open" and "rehearsal" in items["Shadow run passed"].evidence
    assert items["Approval in force"].status == "open" and items["Volatility in its band"].status == "done"
    assert checklist_line(list(items.values())).startswith("Cutover: not ready.")
    broken = tmp_path / "approval.json"
    broken.write_text("{}")
    assert [c.status for c in approval_items(str(broken), PILConfig(), NOW)] == ["not met", "open"]
    assert approval_items(str(tmp_path / "none.json"), PILConfig(), NOW)[0].status == "not met"


@pytest.mark.parametrize("word", ["PASS", "UNDECIDED", "NOT YET", "harm"])
def test_page_says_the_verdict_and_loads_nothing(books: ShadowBooks, panel: Panel, word: str) -> None:
    r = judge_shadow(run_of(word, books, 23 if word == "NOT YET" else 45))
    page = shadow_html(r, cutover_checklist(r, approval="", now=NOW), panel_facts(panel), {"run_id": "x"})
    assert f"</span> {r.verdict.word}</p>" in page and "Cutover checklist" in page and "sessions cannot judge returns" in page
    assert page.count("<h1") == 1 and len(page.encode()) < 500_000 and not re.search(r"nan|None", re.sub(r"<[^>]*>", "", page))


def test_page_of_one_session_and_of_many(panel: Panel) -> None:
    for n in (1, 2, 90):
        r = judge_shadow(replay_panel(panel, PILConfig(), sessions=n, warm_up=30, other="legacy"))
        page = shadow_html(r, cutover_checklist(r, approval="", now=NOW), panel_facts(panel))
        assert f"{n} judged sessions" in page and ("The last 60 of 90 sessions" in page) == (n == 90)
        assert n > 2 or r.verdict.word == "NOT YET"


def test_run_folder(books: ShadowBooks, panel: Panel, tmp_path: Path) -> None:
    r = judge_shadow(books)
    envelope = write_shadow_run(r, cutover_checklist(r, approval="", now=NOW), panel_facts(panel), tmp_path,
                                run_id="20260302T203000Z-3f9c1a")
    check_envelope(envelope)
    assert envelope["verdict"]["action"] == "none" and {c["id"] for c in envelope["checks"]} == {
        f"shadow.{k}" for k in ("sessions", "volatility", "tracking", "turnover", "return", "caps")}
    for c in envelope["checks"]:  # a check that says pass holds by its own number
        if c["status"] == "pass":
            assert (c["value"] >= c["limit"]) if c["op"] == ">=" else (c["value"] <= c["limit"]), c
    daily = pd.read_parquet(tmp_path / "data" / "daily.parquet")
    assert len(daily) == 45 and json.loads((tmp_path / "result.json").read_text())["tables"]["kind"] == "replay"
    assert len(shadow_checks(r)) == 6


# ----------------------------------------------------------------------------------------------------- the journal


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty sessions of a small desk, with one restart and one operator kill of a symbol that is released."""
    path = tmp_path_factory.mktemp("desk") / "book.db"
    desk = Desk(path, fresh=True)
    desk.run(300, 314)
    desk.restart()
    desk.run(315, 330)
    desk.store.close()
    return path


def test_journal_gives_the_books_that_were_decided(store: Path) -> None:
    b = replay_journal(store)
    with StateStore(store, readonly=True) as opened:
        rows = {r.session: whole_decision(r.payload, opened.blob)["exposures"] for r in opened.rows() if r.kind == "decision"}
    assert b.kind == "journal" and b.ours.index[0] == DAYS[300] and b.ours.index[-1] == DAYS[329]  # the last bar is not known
    assert b.first == DAYS[301] and len(b.sessions) == 29
    for day in (DAYS[305], DAYS[322]):
        assert b.ours.loc[day].to_dict() == pytest.approx(rows[day.date().isoformat()])
    assert b.evidence["differences"] == 0 and b.evidence["decisions"] == 31 and b.evidence["epochs"] >= 2
    assert sorted(b.panel.symbols) == NAMES and list(b.panel.sleeve_ids) == IDS
    assert b.facts["skipped_band"].notna().all() and (b.facts["missed"] == 0).all()


def test_journal_is_judged_with_its_evidence(store: Path, tmp_path: Path) -> None:
    r = judge_shadow(replay_journal(store))
    items = {c.item: c for c in cutover_checklist(r, approval="", now=NOW)}
    assert items["Journal can be replayed"].status == items["Restart was survived"].status == "done"
    assert items["No slot was missed"].status == "done" and items["Kill switch was tried"].status == "open"
    assert "Replay of history" not in r.verdict.headline and r.rules["status"]["slots"] == "pass"
    page = shadow_html(r, list(items.values()), panel_facts(r.books.panel))
    assert "Journal: decisions" in page
    late = replay_journal(store, start=str(DAYS[310].date()))
    assert late.first == DAYS[310] and len(late.sessions) == 20


def test_a_missed_session_is_seen(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "book.db", fresh=True)
    desk.run(300, 303)
    desk.run(305, 308)
    desk.store.close()
    b = replay_journal(tmp_path / "book.db")
    assert b.facts["missed"].sum() >= 1 and DAYS[304] in b.ours.index
    assert judge_shadow(b).verdict.failed == ("slots",)


def test_an_empty_journal_and_a_single_session_are_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "book.db", fresh=True)
    with pytest.raises(InputError, match="no decision yet"):
        replay_journal(tmp_path / "book.db")
    desk.run(300, 300)
    with pytest.raises(InputError) as e:
        replay_journal(tmp_path / "book.db")
    desk.store.close()
    assert e.value.code == "TOO_SHORT"


def test_accounts_start_with_the_first_row_for_free(books: ShadowBooks) -> None:
    assert (books.accounts.turnover.iloc[0] == 0.0).all()
    assert list(books.accounts.net.columns) == ["ours|0", "ours|1", "other|0", "other|1"]
    assert keep_accounts.__doc__ is not None


# ----------------------------------------------------------------------------------------------------- the command


def test_command_passes_what_was_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    from pil_research import cli

    asked: dict[str, Any] = {}

    def fake(report: str, parameters: dict[str, Any], runs: str) -> Path:
        asked.update(parameters, report=report, runs=runs)
        (tmp_path / "result.json").write_text(json.dumps({
            "verdict": {"status": "inconclusive", "word": "NOT YET", "headline": "day 3 of 40"}, "checks": [],
            "data": {"name": "x", "n_obs": 3, "start": "a", "end": "b"}}))
        return tmp_path

    monkeypatch.setattr("pil_research.research.runner.run_report", fake)
    assert cli.main(["shadow", "--store", "book.db", "--other", "desk.csv", "--runs", "r", "--gate"]) == 3
    assert asked == {"report": "shadow", "runs": "r", "store": "book.db", "other": "desk.csv"}
    assert cli.main(["shadow", "--sessions", "30"]) == 0 and asked["sessions"] == 30
    assert cli.main(["shadow", "--since", "2026-01-01"]) == 2
    assert "NOT YET: day 3 of 40" in capsys.readouterr().out


@pytest.mark.slow
def test_report_from_a_store_by_the_command(store: Path, tmp_path: Path) -> None:
    from pil_research import cli

    assert cli.main(["shadow", "--store", str(store), "--runs", str(tmp_path)]) == 0
    run = next((tmp_path / "shadow").iterdir())
    result = json.loads((run / "result.json").read_text())
    assert result["tables"]["kind"] == "journal" and result["params"]["store"] == "book.db"
    executed = (run / "executed.ipynb").read_text()
    assert str(store.parent) not in executed and str(tmp_path) not in executed
