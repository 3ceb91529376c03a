"""The daily book explainer: walked account, tables, reasons, noise, invariants, page and run folder."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pil_research.allocators import erc, hrp
from pil_research.config import PILConfig
from pil_research.research.book_walk import walk_to_last_session
from pil_research.research.explain import (
    TOLERANCE,
    explain_book,
    invariant_checks,
    name_table,
    sleeve_risk,
    trade_reason,
    weight_noise,
)
from pil_research.research.explain_page import explain_html, explain_verdict, write_explain_run
from pil_research.research.ladder_result import panel_facts
from pil_research.research.report import check_envelope
from pil_research.research.synthetic_panel import synthetic_panel
from pil_research.research.todays_book import last_session_book
from pil_research.research.walk_forward import walk_forward
from pil_research.types import InputError

CONFIG = PILConfig()


@pytest.fixture(scope="module")
def panel():
    return synthetic_panel(7, n_sleeves=4, n_symbols=10, n_days=600)


@pytest.fixture(scope="module")
def book(panel):
    return explain_book(walk_to_last_session(panel, CONFIG, sessions=60), CONFIG, draws=100)


def test_one_session_is_the_fresh_account(panel):
    fresh = walk_to_last_session(panel, CONFIG, sessions=1).decision
    plain, _ = last_session_book(replace(panel, prices=None), CONFIG)
    pd.testing.assert_series_equal(fresh.exposures, plain.exposures, check_exact=True)
    assert fresh.id == plain.id and fresh.binding == plain.binding


def test_the_walk_is_the_walk_forward(panel):
    study = walk_forward(panel, {"HRP": CONFIG}, start=panel.dates[-60], account=5e6)
    walk = walk_to_last_session(panel, CONFIG, sessions=60)
    assert walk.decision.session == study.dates[-1] == panel.dates[-1]
    # costs are booked at another moment of the day: a few millionths of equity
    np.testing.assert_allclose(walk.gross, study.gross_exposure["HRP"].tail(60), atol=5e-5)


def test_the_last_row_of_the_panel_is_not_seen(panel, book):
    changed = panel.returns.copy()
    changed.iloc[-1] = 0.3
    targets = {k: w.copy() for k, w in panel.targets.items()}
    for w in targets.values():
        w.iloc[-1] = 1.0
    other = walk_to_last_session(replace(panel, returns=changed, targets=targets), CONFIG, sessions=60)
    pd.testing.assert_series_equal(other.decision.exposures, book.walk.decision.exposures, check_exact=True)
    with pytest.raises(InputError, match="sessions must be") as err:
        walk_to_last_session(panel, CONFIG, sessions=600)
    assert err.value.code == "TOO_SHORT"


def test_stages_are_the_decisions(book):
    records = book.walk.decision.stages
    assert len(book.stages) == len(records) and book.stages.index[-1] == "8 ladder"
    np.testing.assert_array_equal(book.stages["gross"], [s.gross for s in records])
    assert book.stages["gross"].iloc[-1] == pytest.approx(book.walk.decision.exposures.abs().sum(), abs=1e-12)


def test_sleeves_and_risk_shares(book):
    s = book.sleeves
    risk = sleeve_risk(book.walk, CONFIG)
    np.testing.assert_allclose(s["base"], hrp(risk.cov), atol=1e-12)
    np.testing.assert_allclose(s["erc"], erc(risk.cov), atol=1e-12)
    np.testing.assert_allclose(s["ramp"], book.walk.decision.sleeve_weights, atol=1e-14)
    assert s["risk_share"].sum() == pytest.approx(1.0, abs=1e-12)
    a = s["ramp"].to_numpy()
    np.testing.assert_allclose(s["risk_share"], a * (risk.cov @ a) / (a @ risk.cov @ a), atol=1e-12)
    half = 0.5 * np.abs(s["base"] - s["erc"]).sum()
    assert half == pytest.approx(book.walk.decision.numbers["hrp_erc_divergence"], abs=1e-9)


def test_names_sum_and_every_untraded_name_has_a_reason(book):
    n = book.names
    np.testing.assert_allclose(n[list(book.sleeves.index)].sum(axis=1), n["target"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(n["now"] + n["trade"], n["final"], rtol=0, atol=1e-15)
    off = n[n["wanted"].abs() > TOLERANCE]
    assert len(off) and (off.loc[off["done"] == "not traded", "why"] != "").all()
    assert set(n["done"]) <= {"traded", "not traded", "at target"}
    assert (n.loc[n["done"] == "not traded", "trade"].abs() <= TOLERANCE).all()


@pytest.mark.parametrize(("changes", "now", "expected"), [
    ({}, 0.05, ("at target", "")),
    ({"risk level": 0.046, "band": 0.046, "gate": 0.046, "held limit": 0.046, "restriction": 0.046, "caps again": 0.046,
      "lot": 0.046}, 0.046, ("not traded", "band")),
    ({"risk level": 0.0004, "kelly": 0.0012, "band": 0.0004, "gate": 0.0004, "held limit": 0.0004, "restriction": 0.0004,
      "caps again": 0.0004, "lot": 0.0004}, 0.0004, ("not traded", "min_ticket")),
    ({"risk level": 0.02, "gate": 0.02, "held limit": 0.02, "restriction": 0.02, "caps again": 0.02, "lot": 0.02}, 0.02,
     ("not traded", "cost")),
    ({"risk level": 0.02}, 0.02, ("traded", "to target")),
    ({"risk level": 0.056, "band": 0.056, "gate": 0.056, "held limit": 0.056, "restriction": 0.056, "caps again": 0.052,
      "lot": 0.04}, 0.08, ("traded", "risk level, band, cap, lot")),
    ({"risk level": 0.02, "restriction": 0.02, "caps again": 0.02, "lot": 0.02}, 0.02, ("not traded", "restriction")),
    ({"risk level": 0.001, "kelly": 0.0011, "band": 0.001, "gate": 0.001, "held limit": 0.001, "restriction": 0.001,
      "caps again": 0.001, "lot": 0.0}, 0.001, ("traded", "band, dust")),
    ({"repair": 0.04}, 0.05, ("traded", "repair")),
    ({"lot": 0.048, "repair": 0.04}, 0.05, ("traded", "lot, repair")),
])
def test_reasons(changes, now, expected):
    from pil_research.passport import SYMBOL_STEPS

    path = pd.Series(0.05, index=list(SYMBOL_STEPS))
    for key, value in changes.items():
        path[key] = value
    path["repair"] = changes.get("repair", path["lot"])
    assert trade_reason(path, now, 0.0075, 0.5) == expected


def test_noise_is_reproducible_and_falls_with_the_window():
    rng = np.random.default_rng(0)
    long = 0.01 * rng.standard_normal((2000, 4)) @ np.linalg.cholesky(0.3 + 0.7 * np.eye(4)).T
    flat = replace(CONFIG.covariance, half_life=5000.0)
    small, large = (weight_noise(long[:n], flat, "direct", draws=80) for n in (120, 2000))
    assert (small.hrp.std(axis=0) > 1.5 * large.hrp.std(axis=0)).all() and (small.erc.std(axis=0) > large.erc.std(axis=0)).all()
    again = weight_noise(long[:120], flat, "direct", draws=80)
    np.testing.assert_array_equal(again.hrp, small.hrp)
    assert 0.0 <= small.same_order <= 1.0
    np.testing.assert_allclose(small.hrp.sum(axis=1), 1.0, atol=1e-12)
    rho = np.array([[1, 0.9, 0.3, 0.1], [0.9, 1, 0.4, 0.15], [0.3, 0.4, 1, 0.7], [0.1, 0.15, 0.7, 1]])
    clear = 0.01 * rng.standard_normal((2000, 4)) @ np.linalg.cholesky(rho).T
    assert weight_noise(clear, flat, "direct", draws=80).same_order > 0.9


def test_a_broken_number_fails_its_check(book):
    assert book.passed and max(c["value"] for c in book.checks if c["limit"] == 1e-12) < 1e-14
    d = book.walk.decision
    step = d.passport.decision
    tampered = step._replace(exposures=step.exposures + np.where(np.arange(step.exposures.shape[1]) == 0, 0.2, 0.0))
    passport = type(d.passport)(tampered, d.passport.symbols, d.passport.sleeve_ids)
    wrong = replace(d, passport=passport)
    bad = {c["id"] for c in invariant_checks(wrong, CONFIG, name_table(wrong, CONFIG)) if c["status"] == "fail"}
    assert {"explain.parts_sum_to_weight", "explain.cap_excess_final"} <= bad
    with pytest.raises(InputError, match="passport"):
        name_table(replace(d, passport=None), CONFIG)


def test_page_and_run_folder(panel, book, tmp_path):
    result = write_explain_run(book, panel_facts(panel), CONFIG, tmp_path, run_id="20260101T000000Z-abcdef",
                               params={"draws": 100})
    check_envelope(result)
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert result["verdict"]["status"] == "pass" and result["verdict"]["action"] == "none"
    assert result["data"]["seed"] == int(panel.name.removeprefix("synthetic-"))
    assert {c["id"] for c in result["checks"]} >= {"explain.parts_sum_to_weight", "explain.untraded_without_reason"}
    page = (tmp_path / "report.html").read_text()
    assert len(page.encode()) < 500_000 and page.count('role="img"') == 3 and "ynthetic" in page
    assert all(str(name) in page for name in book.names.index)
    assert pd.read_parquet(tmp_path / "data" / "account.parquet").shape == (60, 2)
    assert result["tables"]["names"].keys() == {str(n) for n in book.names.index}


def test_fresh_and_flat_books_have_pages_too(panel):
    facts = panel_facts(panel)
    fresh = explain_book(walk_to_last_session(panel, CONFIG, sessions=1), CONFIG, draws=20)
    assert fresh.passed and explain_html(fresh, facts, CONFIG)
    one = panel.select(sleeves=[panel.sleeve_ids[0]])
    single = explain_book(walk_to_last_session(one, CONFIG, sessions=2), CONFIG, draws=20)
    assert single.passed and np.isnan(single.same_order) and "What HRP clustered" not in explain_html(single, facts, CONFIG)
    early = panel.select(end=panel.dates[40])
    empty = explain_book(walk_to_last_session(early, CONFIG, sessions=2), CONFIG, draws=20)
    assert empty.passed and explain_verdict(empty)["status"] == "pass" and explain_html(empty, facts, CONFIG)
