"""The agreement report: rows, statuses, absent and broken peers, published facts, page and run folder."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pil_research.config import PILConfig
from pil_research.research import oracle, oracle_page, oracle_published
from pil_research.research.ladder_result import panel_facts
from pil_research.research.oracle import COMPARISONS, Agreement, Comparison, compare_peer, peer_agreement, status_of
from pil_research.research.oracle_page import (
    area_table,
    oracle_checks,
    oracle_html,
    oracle_verdict,
    write_oracle_run,
)
from pil_research.research.oracle_published import Published, compare_published, published_agreement
from pil_research.research.report import check_envelope
from pil_research.research.synthetic_panel import synthetic_panel

CLOSED = {"hrp_riskfolio", "hrp_skfolio", "hrp_pypfopt", "herc_riskfolio", "psr_skfolio", "dsr_skfolio", "cpcv_skfolio",
          "ledoit_wolf_pypfopt", "ledoit_wolf_sklearn"}


@pytest.fixture(scope="module")
def rows() -> list[Agreement]:
    return [*peer_agreement(sizes=(2, 3, 7, 20)), *published_agreement()]


def test_every_row_agrees_or_says_why_not(rows):
    assert {r.status for r in rows} <= {"agrees", "explained", "not installed"}
    assert len({r.name for r in rows}) == len(rows) == len(COMPARISONS) + 26
    for r in rows:
        assert r.status == "not installed" or np.isfinite(r.difference)
        assert r.status != "agrees" or r.difference <= r.tolerance
        if r.name in CLOSED and r.status == "agrees":
            assert r.difference <= 1e-12 and r.tolerance <= 1e-12 and r.version
    assert {r.name for r in rows if r.status == "explained"} <= {"ledoit_wolf_pypfopt_default", "uplift_departs"}


def test_another_seed_agrees_too():
    names = ["erc_equal_shares", "ledoit_wolf_sklearn", "pairwise_pandas", "ewma_pandas", "rank_ic_scipy"]
    got = peer_agreement(sizes=range(2, 12), seed=99, only=names)
    assert len(got) == len(names) and all(r.status in ("agrees", "not installed") for r in got)


def test_absent_and_broken_peers_are_rows():
    def broken(rng, sizes):
        raise RuntimeError("their solver gave up")

    lost = compare_peer(Comparison("x", "HRP", "weights", "no-such-package", 1e-12, broken), sizes=(3,), seed=1)
    assert (lost.status, lost.version) == ("not installed", "") and np.isnan(lost.difference)
    failed = compare_peer(Comparison("y", "HRP", "weights", "numpy", 1e-12, broken), sizes=(3,), seed=1)
    assert failed.status == "could not run" and "RuntimeError: their solver gave up" in failed.note
    wrong = compare_peer(Comparison("z", "HRP", "weights", "numpy", 1e-12, lambda r, s: np.nan), sizes=(3,), seed=1)
    assert wrong.status == "differs" and status_of(np.inf, 1.0) == "differs"
    checks = {c["id"]: c["status"] for c in oracle_checks([lost, failed, wrong])}
    assert checks == {"oracle.y": "error", "oracle.z": "fail"}
    alone = oracle_verdict([lost])
    assert alone["word"] == "INDIFFERENT" and "not installed: no-such-package" in alone["headline"]
    assert oracle_verdict([failed])["word"] == "FAIL" and "differs: y" in oracle_verdict([failed])["headline"]
    assert oracle_html([lost, failed, wrong], {}).count("<h1") == 1


def test_a_wrong_number_is_not_published_agreement():
    fact = Published("p", "HRP", "weights", lambda: (0.5, 0.5), (0.5, 0.6), 0.01, "someone")
    assert compare_published(fact).status == "differs" and compare_published(fact).theirs == "0.5, 0.6"
    assert compare_published(replace(fact, ours=lambda: (0.5, 0.5, 0.0))).status == "differs"
    assert compare_published(replace(fact, ours=lambda: (np.nan, 0.6))).status == "differs"
    assert compare_published(replace(fact, tolerance=0.1 + 1e-9)).status == "agrees"


def test_facts_are_the_printed_ones():
    np.testing.assert_allclose(sum(oracle_published.LDP_TABLE), 100.0, atol=1e-9)
    assert len(oracle_published.CSCV_CASE) == 16 and oracle_published.ldp_returns().shape == (10_000, 10)
    for k, rho, seed in oracle_published.SEED_DEPARTS:
        assert round(float(oracle_published.uplift_cells([(k, rho, seed)])[0]), 2) != seed


def test_page_and_run_folder(rows, tmp_path):
    facts = panel_facts(synthetic_panel(7, n_sleeves=2, n_symbols=5, n_days=300))
    result = write_oracle_run(rows, facts, PILConfig(), tmp_path, run_id="20260101T000000Z-abcdef", params={"largest": 20})
    check_envelope(result)
    assert result == json.loads((tmp_path / "result.json").read_text()) and result["report"] == "oracle"
    judged = [r for r in rows if r.status == "agrees"]
    assert [c["id"] for c in result["checks"]] == [f"oracle.{r.name}" for r in judged]
    assert all(c["status"] == "pass" for c in result["checks"]) and result["verdict"]["action"] == "none"
    page = (tmp_path / "report.html").read_text()
    assert len(page.encode()) < 500_000 and all(t in page for t in ("exhibit 6", "Where conventions differ", 'role="img"'))
    for r in rows:
        assert not r.version or f"{r.reference} {r.version}" in page
    table = area_table(rows)
    assert table["compared"].sum() == len(judged) and (table["used"] <= 1.0).all()
    assert (tmp_path / "data" / "agreements.parquet").is_file()


def test_heavy_libraries_load_only_when_asked():
    assert not {"riskfolio", "skfolio", "pypfopt", "sklearn"} & set(vars(oracle)) | {"riskfolio"} & set(vars(oracle_page))
