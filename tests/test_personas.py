"""The four people who use the package: what each of them needs, one test a point, or the name of the test that proves it."""
from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_runs import passing_runs

import pil_research
from pil_research.config import PILConfig
from pil_research.integrator import PortfolioIntegrator
from pil_research.research.book_walk import walk_to_last_session
from pil_research.research.estimators_api import ERC, HRP, EqualWeight, InverseVol, Ladder
from pil_research.research.explain import explain_book
from pil_research.research.explain_page import write_explain_run
from pil_research.research.index import build_index
from pil_research.research.ladder_result import panel_facts
from pil_research.research.panel import Panel
from pil_research.research.synthetic_panel import synthetic_panel
from pil_research.research.verdict import judge
from pil_research.research.walk_forward import Track, WalkForward, run_tracks, snapshot_at, walk_forward
from pil_research.types import Alarm, AlarmCode, BookState, Decision, Snapshot

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {  # point -> the test that proves it
    "newcomer: two commands set everything up": "test_readme.py::test_commands_are_shown_with_what_they_printed",
    "newcomer: every command of a new project runs": "test_new.py::test_the_quick_commands_of_the_readme_run",
    "newcomer: help imports nothing heavy": "test_cli.py::test_help_imports_nothing_heavy",
    "newcomer: a mistake is answered by one line of cause and one of remedy":
        "test_cli.py::test_a_mistake_is_one_line_of_cause_and_one_of_remedy",
    "newcomer: TAB completes in bash": "test_completion.py::test_commands_are_completed",
    "newcomer: TAB completes in zsh": "test_completion.py::test_zsh_completes",
    "newcomer: TAB completes in fish": "test_completion.py::test_fish_completes",
    "newcomer: a second validation starts nothing that is done": "test_validate.py::test_runs_everything_then_nothing",
    "quant: Ctrl-C in a validation keeps finished reports":
        "test_validate.py::test_an_interrupt_keeps_finished_runs_and_leaves_no_process",
    "quant: Ctrl-C says what is kept": "test_cli.py::test_ctrl_c_says_what_is_kept",
    "committee: a page that loads anything is refused": "test_report.py::test_leaking_or_heavy_pages_are_refused",
    "committee: every verdict has sign, word and class": "test_report.py::test_verdict_box_has_sign_word_and_class",
    "committee: the first screen decides": "test_pages.py::test_the_first_screen_holds_title_verdict_table_and_picture",
    "committee: on paper nothing is cut off": "test_pages.py::test_on_paper_nothing_is_cut_off_folded_or_alone",
    "committee: a screen reader finds its way": "test_pages.py::test_a_screen_reader_finds_its_way",
    "committee: by keyboard": "test_pages.py::test_the_keyboard_reaches_every_link_and_fold_in_order",
    "committee: what changed since the run before": "test_changes.py::test_what_was_asked_and_what_moved_are_named",
    "engineer: the daemon's core imports nothing heavy": "test_rings.py::test_a_fresh_process_loads_nothing_heavy",
    "engineer: state survives JSON on every day": "test_integrator.py::test_state_round_trip_every_day",
    "engineer: the printed book of the notebook is the module's": "test_readme.py::test_quickstart_gives_the_printed_book",
    "engineer: the notebooks are the package": "test_notebooks.py::test_the_package_is_what_the_notebooks_export",
    "engineer: an old store opens for ever": "test_replay.py::test_a_store_of_every_version_opens_for_ever"}


@pytest.mark.parametrize("point", ELSEWHERE)
def test_the_point_is_proved_where_the_table_says(point: str) -> None:
    file, _, name = ELSEWHERE[point].partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    (function,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    marks = " ".join(ast.unparse(d) for d in function.decorator_list)
    assert "skip" not in marks and "xfail" not in marks
    assert [n for n in ast.walk(function) if isinstance(n, ast.Assert) or (
        isinstance(n, ast.With) and "raises" in ast.unparse(n.items[0]))]


# ---------------------------------------------------------------- newcomer

OFFLINE = '''
import socket
_connect = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"no network in this test: {address}")
    return _connect(self, address)
socket.socket.connect = connect
def refuse(*a, **k):
    raise OSError("no network in this test")
socket.getaddrinfo = refuse
'''


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `pil` with no network, no keys and nothing of this process's environment but the path."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(OFFLINE)
    env = {"PATH": os.environ["PATH"], "HOME": str(site), "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OPENBLAS_NUM_THREADS": "1"}

    def pil(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "pil_research", *words], cwd=cwd, env=env, capture_output=True, text=True,
                              timeout=200)
    return pil


def test_newcomer_needs_no_network_and_no_key(bare: Callable[..., Any], tmp_path: Path) -> None:
    assert bare("new", "mine", "--sizes", "3,6,400", cwd=tmp_path).returncode == 0
    done = bare("book", "--data", "panel", "--config", "pil.toml", cwd=tmp_path / "mine")
    assert done.returncode == 0 and "Traceback" not in done.stderr and "no network" not in done.stderr
    assert done.stdout.strip()


@pytest.mark.slow
def test_newcomer_gets_a_report_without_network_that_names_its_own_outputs(bare: Callable[..., Any], tmp_path: Path) -> None:
    assert bare("new", "mine", "--sizes", "3,6,400", cwd=tmp_path).returncode == 0
    done = bare("report", "explain", "--profile", "profile.yaml", cwd=tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    named = re.findall(r"(?:page|index): +(\S+)", done.stdout)
    assert len(named) == 2 and all((tmp_path / "mine" / n).is_file() for n in named)


def test_newcomer_may_run_the_index_again(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 3, 2, tzinfo=UTC)
    passing_runs(tmp_path)
    first = build_index(tmp_path, now=now).read_bytes()
    assert build_index(tmp_path, now=now).read_bytes() == first


@pytest.mark.parametrize("command", ["", "validate", "report", "paper", "book"])
def test_newcomer_sees_help_at_once(command: str) -> None:
    """No library that takes long to import stands between a newcomer and the help text."""
    code = ("import sys\nfrom pil_research.cli import main\n\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
            "print('loaded:', *sorted({'numpy', 'pandas', 'scipy', 'matplotlib', 'papermill', 'sklearn', 'pyarrow', 'numba',"
            " 'exchange_calendars', 'IPython'} & set(sys.modules)))")
    out = subprocess.run([sys.executable, "-c", code, *command.split(), "--help"], capture_output=True, text=True, check=True,
                         cwd=ROOT)
    assert "usage: pil" in out.stdout and out.stdout.splitlines()[-1].strip() == "loaded:"


# ---------------------------------------------------------------- quant

WIDE = 300


@pytest.fixture(scope="module")
def wide() -> Panel:
    return synthetic_panel(3, 12, WIDE, 420, staggered=False, missing=0.0)


@pytest.fixture(scope="module")
def asked(wide: Panel) -> Snapshot:
    return snapshot_at(wide, wide.dates[-1], equity=5e6, positions=pd.Series(dtype=float))


@pytest.fixture(scope="module")
def decision(asked: Snapshot) -> Decision:
    return PortfolioIntegrator(PILConfig()).build_target_book(asked)


@pytest.fixture(scope="module")
def walk(wide: Panel) -> WalkForward:
    small = wide.select(symbols=list(wide.symbols[:20]))
    ways = {"HRP": "hrp", "ERC": "erc", "1/N-risk": "equal"}
    configs = {n: PILConfig().replace(**{"allocation.method": m}) for n, m in ways.items()}
    return walk_forward(small, configs, start=wide.dates[-8])


def test_quant_finds_names_everywhere(wide: Panel, decision: Decision, walk: WalkForward) -> None:
    assert list(decision.sleeve_weights.index) == list(wide.sleeve_ids)
    assert set(decision.exposures.index) == set(wide.symbols)
    assert list(walk.returns.columns) == ["HRP", "ERC", "1/N-risk"] == list(walk.table().index)
    assert list(walk.sleeve_weights["HRP"].columns) == list(wide.sleeve_ids)
    assert list(HRP().fit(wide.returns.iloc[:, :5]).weights_.index) == list(wide.symbols[:5])
    assert {o.symbol for o in decision.orders} <= set(wide.symbols)


def test_quant_gets_numbers_not_text(walk: WalkForward, decision: Decision) -> None:
    frames = [walk.table(), walk.returns, walk.costs, walk.turnover, walk.leverage, walk.binding, walk.rungs]
    assert all(isinstance(f, pd.DataFrame) and all(pd.api.types.is_numeric_dtype(t) for t in f.dtypes) for f in frames)
    explained = decision.explain(str(decision.exposures.abs().idxmax()))
    assert isinstance(explained.table, pd.DataFrame) and pd.api.types.is_float_dtype(explained.table["part"])
    assert isinstance(walk.returns.index, pd.DatetimeIndex)


def plain_html(page: str) -> None:
    """A table for a notebook: small, no script, nothing that loads."""
    assert len(page.encode()) < 20_000 and "<table" in page
    assert not re.search(r"<script|<style|<link|<iframe|\bon\w+=|src=|https?://|javascript:", page, re.I)


def test_quant_reads_small_tables_in_a_notebook(decision: Decision, walk: WalkForward, wide: Panel, tmp_path: Path) -> None:
    plain_html(decision._repr_html_())
    plain_html(walk._repr_html_())
    plain_html(judge(passing_runs(tmp_path))._repr_html_())
    for kind in (HRP, ERC, InverseVol, EqualWeight, Ladder):
        plain_html(kind().fit(wide.returns.iloc[:, :12])._repr_html_())
    plain_html(InverseVol().fit(wide.returns)._repr_html_())
    for name in (wide.sleeve_ids[0], wide.sleeve_ids[-1], wide.symbols[0], str(decision.exposures.abs().idxmax())):
        plain_html(decision.explain(name)._repr_html_())


def test_quant_reads_small_tables_of_many_tracks_and_alarms(wide: Panel, decision: Decision) -> None:
    small = wide.select(symbols=list(wide.symbols[:5]))
    tracks = [Track(name=f"track number {i}", config=PILConfig().replace(**{"turnover.band": 1e-4 * i})) for i in range(WIDE)]
    plain_html(run_tracks(small, tracks, start=wide.dates[-2])._repr_html_())
    alarms = tuple(Alarm(code=AlarmCode.SYMBOL_UNRISKED, severity="warning", subject=s, value=0.0, limit=30.0, message="x" * 200)
                   for s in wide.symbols)
    page = replace(decision, alarms=alarms)._repr_html_()
    plain_html(page)
    assert "288 more" in page


def test_quant_may_name_a_track_anything(walk: WalkForward) -> None:
    page = walk.select({"HRP": "<b>&"})._repr_html_()
    assert "&lt;b&gt;&amp;" in page and "<b>" not in page
    table = pd.DataFrame(np.random.default_rng(1).normal(size=(50, 2)), columns=["<script>1</script>", "b"])
    assert "<script" not in HRP().fit(table)._repr_html_()


def test_quant_reads_an_explanation_as_a_sentence_and_a_table(decision: Decision, wide: Panel) -> None:
    name = str(decision.exposures.abs().idxmax())
    e = decision.explain(name)
    said = e.sentence
    assert said.startswith(f"{name} is {e.total:+.2%} of equity: it starts at ") and said.endswith(".") and "\n" not in said
    assert np.isclose(e.table["part"].sum(), float(decision.exposures[name]), atol=1e-12)
    largest = e.table["part"].drop("base").abs().idxmax()
    assert f"by {largest} (" in said and said in e._repr_html_() and str(e) == repr(e)
    assert decision.explain(wide.sleeve_ids[0]).sentence.startswith(f"{wide.sleeve_ids[0]} is ")


# ---------------------------------------------------------------- committee

@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """A real report page and its result."""
    panel, out = synthetic_panel(7, n_sleeves=4, n_symbols=10, n_days=500), tmp_path_factory.mktemp("explain")
    book = explain_book(walk_to_last_session(panel, PILConfig(), sessions=20), PILConfig(), draws=20)
    result = write_explain_run(book, panel_facts(panel), PILConfig(), out, run_id="20260101T000000Z-abcdef", params={"draws": 20})
    return (out / "report.html").read_text(encoding="utf-8"), result


def test_committee_gets_a_page_that_stands_alone(run: tuple[str, dict[str, Any]]) -> None:
    page, _ = run
    assert len(page.encode()) < 500_000 and 'lang="en"' in page and page.count("<h1") == 1
    assert not re.search(r"<(script|link|iframe|object|embed)\b|@import|url\((?!#)|(?:src|data|poster)\s*=", page, re.I)


def test_committee_may_print_it(run: tuple[str, dict[str, Any]]) -> None:
    page, _ = run
    assert "@media print" in page and "break-inside:avoid" in page and "details>*{display:block}" in page


def test_committee_sees_verdict_rule_limit_and_provenance(run: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    page, result = run
    top = page[: page.index("<h2")]
    assert 'role="status"' in top and result["verdict"]["headline"].split(" ")[0] in top
    for fact in (result["run_id"], result["config_hash"], result["data"]["hash"], pil_research.__version__, "ynthetic"):
        assert fact in page
    assert all(c["limit"] is not None and c["op"] and c["source"] for c in result["checks"])
    index = build_index(passing_runs(tmp_path)).read_text(encoding="utf-8")
    assert "SPEC 7" in index and "Limit" in index and "0.95" in index


def test_committee_sees_what_changed(run: tuple[str, dict[str, Any]]) -> None:
    page, _ = run
    assert '<p class="sub changes">First run of this report in this folder.</p></header>' in page


def test_committee_sees_no_code(run: tuple[str, dict[str, Any]]) -> None:
    page, _ = run
    assert not re.search(r"<pre|class=\"(?:jp-|input|highlight)|In \[|^import |\bdef \w+\(", page, re.M)


# ---------------------------------------------------------------- engineer

def test_engineer_gets_the_same_answer_twice_and_untouched_inputs(asked: Snapshot, decision: Decision) -> None:
    before = asked.asset_returns.copy(), asked.instruments.copy()
    again = PortfolioIntegrator(PILConfig()).build_target_book(asked)
    pd.testing.assert_series_equal(again.exposures, decision.exposures, check_exact=True)
    assert again.id == decision.id and again.input_hash == decision.input_hash
    for kept, now in zip(before, (asked.asset_returns, asked.instruments), strict=True):
        pd.testing.assert_frame_equal(kept, now)


def test_engineer_stores_state_as_json(asked: Snapshot) -> None:
    integrator = PortfolioIntegrator(PILConfig())
    integrator.build_target_book(asked)
    text = json.dumps(integrator.state.to_dict(), allow_nan=False)
    assert BookState.from_dict(json.loads(text)) == integrator.state


def test_engineer_finds_the_golden_book_in_module_and_walk_forward() -> None:
    golden = json.loads((ROOT / "tests" / "golden" / "book.json").read_text(encoding="utf-8"))
    panel = synthetic_panel(*golden["panel"])
    d = PortfolioIntegrator(PILConfig()).build_target_book(
        snapshot_at(panel, panel.dates[-1], equity=5e6, positions=pd.Series(dtype=float)))
    w = walk_forward(panel, {"HRP": PILConfig()}, start=panel.dates[-1], keep_exposures=["HRP"])
    book = pd.Series(golden["exposures"])
    np.testing.assert_allclose(d.exposures[book.index], book, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(d.sleeve_weights, list(golden["sleeve_weights"].values()), rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(w.exposures["HRP"].iloc[-1][book.index], book, rtol=0.0, atol=1e-9)


def test_engineer_reads_versions(run: tuple[str, dict[str, Any]], decision: Decision) -> None:
    _, result = run
    assert re.fullmatch(r"\d+\.\d+\.\d+", pil_research.__version__) and result["code"]["version"] == pil_research.__version__
    assert re.fullmatch(r"pil\.report/\d+", result["schema"])
    assert decision.config_fingerprint == PILConfig().fingerprint()
