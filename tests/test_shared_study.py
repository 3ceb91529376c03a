"""The kept study: its form, its page, its pictures; and, where the data are, that a cheap part of it comes out again."""
from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import fake_run

from pil_research.research.data import synthetic_panel
from pil_research.research.shared_study import (
    NEEDED,
    check_summary,
    content_hash,
    read_study,
    run_summary,
    write_study,
)
from pil_research.research.study_tables import TABLES, fill_page, markdown, study_svgs, study_tables
from pil_research.types import InputError

DOCS = Path(__file__).resolve().parents[1] / "docs"
STUDY = read_study(DOCS / "shared_study")
REAL = os.environ.get("PIL_SHARED_DATA", "")
PARTS = ("both", "etf", "futures")


# --- what is kept


def test_there_are_three_panels_on_one_configuration() -> None:
    assert tuple(STUDY) == PARTS and len({s["config"] for s in STUDY.values()}) == 1
    assert len({s["data"]["content"] for s in STUDY.values()}) == 3


@pytest.mark.parametrize("part", PARTS)
def test_a_summary_says_everything_the_evidence_needs(part: str) -> None:
    s = STUDY[part]
    ids = {"macro", "pairs", "trend", "vol_premium"} | ({"carry"} if part != "etf" else set())
    assert set(s["sleeves"]["alone"]) == ids
    assert {"HRP", "ERC", "inverse-vol", "1/N-risk", "1/N nominal", "min-variance", "NCO", "legacy"} <= set(s["ladder"]["rungs"])
    assert set(s["verdict"]["gates"]) == {"ladder", "pbo", "dsr", "sensitivity", "stress", "stress_1n_risk"}
    assert s["verdict"]["action"] in ("ship_hrp", "ship_1n_risk", "none")
    replays = {k.split("|")[1][:4] for k in s["stress"]["replays"]}
    assert replays >= ({"2008", "2011"} if part == "futures" else {"2008", "2011", "2020"})
    assert s["trials"] >= s["overfitting"]["lag0"]["n_trials"] > 30
    assert sum(s["findings"].values()) > 300 and s["data"]["files"]
    for row in s["sleeves"]["alone"].values():
        assert row["low"] < row["net_sharpe"] < row["high"] and row["leak"] in ("none", "found")


@pytest.mark.parametrize("part", PARTS)
def test_a_summary_holds_results_and_no_market_data(part: str) -> None:
    text = (DOCS / "shared_study" / f"{part}.json").read_text()
    assert len(text) < 120_000 and not re.search(r'"(/|[A-Z]:\\)', text)  # no path of a machine

    def longest(x: Any) -> int:
        parts = list(x.values()) if isinstance(x, dict) else x if isinstance(x, list) else []
        own = len(x) if isinstance(x, list) else 0
        return max([own, *map(longest, parts)])
    assert longest(json.loads(text)) <= 20  # no series


# --- its page and pictures


def test_the_page_holds_the_numbers_of_the_files() -> None:
    page = (DOCS / "evidence.md").read_text(encoding="utf-8")
    assert fill_page(page, study_tables(STUDY)) == page
    assert set(re.findall(r"<!-- table (\w+) -->", page)) == set(TABLES)


@pytest.mark.parametrize("name", ["sleeves", "ladder", "replays"])
def test_the_pictures_are_those_of_the_files(name: str) -> None:
    kept = (DOCS / "shared_study" / f"{name}.svg").read_text(encoding="utf-8")
    assert kept == study_svgs(STUDY)[name]
    assert len(kept) < 60_000 and "var(--" not in kept and "href=\"http" not in kept and kept.startswith("<svg ")


def test_filling_a_page_touches_only_its_tables() -> None:
    page = "before\n<!-- table a -->\nold\n<!-- end -->\nafter"
    assert fill_page(page, {"a": "new"}) == "before\n<!-- table a -->\n\nnew\n\n<!-- end -->\nafter"
    with pytest.raises(InputError, match="UNKNOWN_TABLE|may name the tables"):
        fill_page("<!-- table b --><!-- end -->", {"a": "new"})
    assert markdown(("x", "y"), [("1", "2")]).splitlines()[1] == "|---|---:|"


# --- how it is made


def test_a_study_needs_every_report_on_one_panel(tmp_path: Path) -> None:
    panel = synthetic_panel(3, n_sleeves=2, n_symbols=3, n_days=80)
    with pytest.raises(InputError) as error:
        run_summary(tmp_path, panel)
    assert error.value.code == "NO_RUNS"
    for report in NEEDED:
        fake_run(tmp_path, report, data="sha256:" + ("cd" if report == "stress" else "ab") * 32)
    with pytest.raises(InputError) as error:
        run_summary(tmp_path, panel)
    assert error.value.code == "MIXED_RUNS"


@pytest.mark.parametrize(("break_it", "what"), [
    (lambda s: s.pop("ladder"), "ladder"), (lambda s: s.update(schema="pil.study/0"), "pil.study/0"),
    (lambda s: s["sleeves"]["marginal"].pop("trend"), "marginal"),
    (lambda s: s["sleeves"]["levels"].pop("without trend"), "levels"),
    (lambda s: s["overfitting"]["lag0"].update(pbo=float("nan")), "NaN")])
def test_a_summary_that_does_not_fit_is_refused(break_it: Any, what: str, tmp_path: Path) -> None:
    broken = copy.deepcopy(STUDY["both"])
    break_it(broken)
    with pytest.raises(InputError, match=what):
        check_summary(broken)
    with pytest.raises(InputError):
        write_study({"x": broken}, tmp_path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    assert [p.name for p in write_study(STUDY, tmp_path)] == [f"{p}.json" for p in PARTS]
    assert read_study(tmp_path) == STUDY
    with pytest.raises(InputError, match="no summary"):
        read_study(tmp_path / "empty")


def test_the_content_hash_sees_one_number_and_no_name() -> None:
    from dataclasses import replace

    panel = synthetic_panel(3, n_sleeves=2, n_symbols=3, n_days=80)
    returns = panel.returns.copy()
    returns.iloc[40, 1] = np.nextafter(returns.iloc[40, 1], 1.0)
    assert content_hash(replace(panel, name="other")) == content_hash(panel) != content_hash(replace(panel, returns=returns))


# --- the cheap part, made again


@pytest.mark.parametrize("part", PARTS)
def test_the_panel_and_the_sleeves_come_out_again(part: str) -> None:
    if not REAL:
        pytest.skip("PIL_SHARED_DATA is not set: the study's panels cannot be made again")
    from pil_research.config import PILConfig
    from pil_research.research.data_import import source_files
    from pil_research.research.metrics import sharpe
    from pil_research.research.panel_source import panel_source, source_panel
    from pil_research.research.sleeve_evidence import stand_alone

    kept = STUDY[part]
    source = panel_source(f"shared:{part}")
    assert {f["name"]: f["sha256"] for f in source_files(source.kind, REAL)} == kept["data"]["files"]
    panel = source_panel(source)
    assert content_hash(panel) == kept["data"]["content"]
    net = stand_alone(panel, PILConfig(), lags=(0,)).net(0)
    for name, row in kept["sleeves"]["alone"].items():
        assert float(sharpe(net[name].dropna().to_numpy())) == pytest.approx(row["net_sharpe"], abs=2e-6), name
