"""The benchmark's clockwork, every job in a tiny setting, and the page; the figures belong to a machine and are not tested."""
from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pil_research.cli import main
from pil_research.commands import bench
from pil_research.engine import NUMPY, engine
from pil_research.research import bench_page as page
from pil_research.research.page import check_page
from pil_research.research.report import read_runs
from pil_research.types import InputError

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("allocate", "growth", "harness", "live", "memory", "peers", "risk", "run", "scale", "selection", "session", "start",
           "walk")
EXACT = {"HRP, one call": 1e-12, "ERC, one call": 1e-10, "configurations": 1e-12, "grid": 1e-12, "CSCV": 1e-12,
         "scale-out": 1e-12, "live decision": 1e-12, "live slot": 1e-15}


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """Imports a module of the benchmarks folder, and takes all of them back at the end."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "benchmarks"))
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def harness(load: Any) -> ModuleType:
    return load("harness")


@pytest.fixture(scope="module")
def run(load: Any) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
            patch.setenv(name, "1")
        found = load("run")
        sys.path.remove(str(ROOT / "benchmarks"))
        return found


def bare(**given: Any) -> dict[str, Any]:
    """A row as it stands in the JSON."""
    empty = {**dict.fromkeys(("peer_s", "ratio", "difference", "met", "memory_mb", "peer_memory_mb", "exponent")), "curve": [],
             **dict.fromkeys(("peer", "compares", "goal", "note", "axis"), ""), "job": "j", "case": "c", "ours_s": 1e-3}
    return {**empty, **given}


def found_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"schema": "pil.bench/2", "created": "2026-01-05T12:00:00Z", "effort": "quick", "threads": 1, "cores": 2,
            "versions": {"numpy": "2.4"}, "rows": rows}


def test_contenders_take_turns(harness: ModuleType) -> None:
    calls: list[str] = []
    took = harness.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, {"a": 2})
    assert calls == ["a", "b", "a", "a", "b", "b", "a", "a"] and set(took) == {"a", "b"} and min(took.values()) >= 0.0


def test_ratio_goal_and_json(harness: ModuleType, tmp_path: Path) -> None:
    rows = [harness.Row(job="j", case="c", ours_s=0.002, peer="p", peer_s=0.5, difference=1e-16, compares="weights",
                        **harness.goal_of(250.0, 300.0)), harness.Row(job="j", case="d", ours_s=3e-5, note="said")]
    assert rows[0].ratio == 250.0 and rows[0].met is False and rows[1].ratio is None
    text = harness.text_table(rows)
    assert "250x" in text and ">= 300x (missed)" in text and "30 µs" in text and "j, d: said" in text
    assert "difference is weights" in text
    got = harness.write_json(rows, tmp_path / "b" / "latest.json", harness.Effort.QUICK)
    assert got == json.loads((tmp_path / "b" / "latest.json").read_text())
    assert got["schema"] == "pil.bench/2" and got["rows"][0]["ratio"] == 250.0 and "numpy" in got["versions"]
    assert got["effort"] == "quick"


def test_a_wrong_answer_meets_no_goal_however_fast(harness: ModuleType) -> None:
    assert harness.goal_of(1e9, 10.0, right=False)["met"] is False and harness.goal_of(10.0, 10.0)["met"] is True
    assert harness.goal_of(None, 10.0)["met"] is None and harness.goal_of(10.0, None) == {}
    assert "missed by a factor of 2.00: why" in harness.missed("said", 5.0, 10.0, "why")
    assert harness.missed("said", 10.0, 10.0, "why") == "said" and harness.absent("j", "c", 1.0, "p", ">= 5x").met is None


def test_slope_memory_and_child(harness: ModuleType) -> None:
    assert math.isclose(harness.slope([(x, 3.0 * x**1.7) for x in (1, 2, 4, 8, 16)]), 1.7, rel_tol=1e-9)
    assert 7.9 < harness.peak_mb(lambda: np.zeros(1_000_000)) < 9.0
    got = harness.child("import json, sys; print(json.dumps({'mb': rss_mb(), 'a': sys.argv[1]}))", 7)
    assert got["a"] == "7" and 5.0 < got["mb"] < 100.0  # of a bare interpreter, whatever this one holds


def test_live_feed_gives_one_decision_a_day(harness: ModuleType, load: Any) -> None:
    ours = load("live").warm(load("live").Feed(3, 8, 4), 3, skip=1)
    assert 0.0 < ours.median <= ours.slow and ours.opening > 0.0 and ours.reading > 0.0 and ours.appending > 0.0
    assert len(ours.exposures) == 8 and float(ours.exposures.abs().sum()) > 0.0


def test_engines_are_switched_before_the_clock_and_back(load: Any) -> None:
    allocate = load("allocate")
    names = allocate.engines()
    assert names[0] == NUMPY and engine() == NUMPY
    for name in names:
        call = allocate.on(name, engine)
        call.ready()
        assert engine() == name == call()
    allocate.on(NUMPY, engine).ready()
    assert engine() == NUMPY


def test_the_dense_form_and_the_plain_splits_are_what_they_say(load: Any) -> None:
    from pil_research.estimators.book_vol import book_vol
    from pil_research.research.cscv import cscv

    returns, book = load("risk").book(25)
    assert math.isclose(load("risk").dense_vol(returns, book), float(book_vol(returns, book)), rel_tol=1e-12)
    x = 0.01 * np.random.default_rng(1).standard_normal((96, 9))
    np.testing.assert_allclose(load("selection").per_split(x, 6, list(range(20))), cscv(x, 6).logits, atol=1e-12, rtol=0)


def test_hrp_alone_is_the_same_work_batched(load: Any) -> None:
    walk = load("walk")
    x = 0.01 * np.random.default_rng(2).standard_normal((walk.WARM_UP + 12, 4))
    np.testing.assert_allclose(walk.daily(x), walk.batched(x), atol=1e-15, rtol=0)
    assert len(walk.daily(x)) == 12


def test_the_commands_jobs_are_the_scripts(run: ModuleType) -> None:
    assert tuple(run.JOBS) == bench.JOBS


@pytest.mark.parametrize("name", ["live", "slot", "hrp", "erc", "configs", "cscv", "vol", "import"])
def test_every_job_runs_and_answers_agree(name: str, run: ModuleType, harness: ModuleType) -> None:
    check_rows(run.job(name)(harness.Effort.TINY))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["walk", "thousand", "memory", "growth", "scale"])
def test_every_slower_job_too(name: str, run: ModuleType, harness: ModuleType) -> None:
    check_rows(run.job(name)(harness.Effort.TINY))


def check_rows(rows: list[Any]) -> None:
    """Times positive, goals worded, answers equal within the job's limit, something to say where nothing is judged."""
    assert rows and engine() == NUMPY
    for r in rows:
        assert r.ours_s > 0.0 and (r.peer_s is None or r.peer_s > 0.0) and (r.met is None or r.goal)
        assert r.difference is None or r.peer.startswith("PyPortfolioOpt,") or r.difference <= EXACT.get(r.job, 1e-9), r
        assert not (r.goal and r.met is None) or "judged" in r.note, r
        assert r.met is not False or "missed" in r.note or r.job == "configurations", r
        assert (r.exponent is None) == (not r.curve) and (not r.curve or len(r.curve) >= 3)


def test_a_goal_of_several_cases_shows_its_worst() -> None:
    rows = [bare(case=f"K={k}, numpy", ratio=x, peer_s=x, goal=">= 40x", met=x >= 40)
            for k, x in ((5, 90.0), (8, 30.0), (12, 50.0))]
    rows += [bare(case="other", goal="< 1 GB", met=None, memory_mb=10.0), bare(case="no goal", ratio=2.0)]
    worst = page.goal_rows(rows)
    assert [(r["case"], r["cases"]) for r in worst] == [("K=8, numpy", 3), ("other", 1)]
    assert page.goal_counts(rows) == {"met": 0, "missed": 1, "not judged": 1}
    assert page.summary(found_of(rows))[0] == "0 of 1 goals met"


def test_numbers_as_text() -> None:
    assert [page.span(x) for x in (None, 5e-7, 0.0123, 9.86, 5000.0)] == ["", "0.5 µs", "12.3 ms", "9.86 s", "83.3 min"]
    assert [page.times(x) for x in (0.75, 7.07, 99.4, 99.9, 12345.0)] == ["0.75x", "7.07x", "99.4x", "100x", "12,345x"]
    assert page.result_text(bare(ratio=4.0, memory_mb=5.0, peer_memory_mb=50.0)) == "4x, 0.1 of memory"
    assert page.result_text(bare(exponent=1.06)) == "exponent 1.06" and page.result_text(bare(memory_mb=912.4)) == "912 MB"
    assert [page.difference_text(bare(difference=x)) for x in (None, 0.0, 3.4e-14)] == ["", "0", "3e-14"]


def test_page_of_a_run_is_small_loads_nothing_and_tells_why(tmp_path: Path) -> None:
    rows = [bare(job=f"job {i}", case=f"case <{i}>", peer="p", peer_s=1.0, ratio=1e3 / (i + 1), goal=">= 100x",
                 met=i < 9, note=f"because {i}") for i in range(30)]
    rows += [bare(job="growth", case=f"{a} 4 to 64", axis=a, exponent=1.0, curve=[[x, 1e-4 * x] for x in (4.0, 16.0, 64.0)],
                  goal="exponent <= 1.1", met=True) for a in page.AXES]
    html = page.bench_html(found_of(rows), "20260105T120000Z")
    check_page(html)
    assert len(html.encode()) < 500_000 and html.count("<svg") == 2 and "case &lt;3&gt;" in html
    assert "14 of 35 goals met" in html and "because 20" in html and "20260105T120000Z" in html
    assert "<svg" not in page.bench_html(found_of([bare()]))
    with pytest.raises(InputError, match="pil.bench/2") as caught:
        page.bench_html({"schema": "pil.bench/1", "rows": []})
    assert caught.value.code == "BAD_BENCH"


def test_docs_block_replaces_only_what_stands_between_its_markers(tmp_path: Path) -> None:
    rows = [bare(job="scale-out", case="n | m", peer="one", peer_s=2e-3, ratio=2.0, note="pays"),
            bare(goal=">= 5x", met=False, ratio=4.0, note="too slow"), bare(goal="< 1 GB", note="nothing is judged")]
    doc = tmp_path / "page.md"
    doc.write_text(f"# Title\n\n{page.BEGIN}\nold\n{page.END}\n\nrest\n")
    page.write_docs(doc, found_of(rows))
    text = doc.read_text()
    page.write_docs(doc, found_of(rows))
    assert doc.read_text() == text and text.startswith("# Title\n") and text.endswith("\n\nrest\n") and "old" not in text
    assert "0 of 1 goals met" in text and "too slow" in text and "n \\| m" in text and "Quick run: small sizes" in text
    for broken in ("no markers", f"{page.END} {page.BEGIN}", f"{page.BEGIN}{page.BEGIN}{page.END}"):
        doc.write_text(broken)
        with pytest.raises(InputError, match="once each"):
            page.write_docs(doc, found_of(rows))


def test_the_documentation_has_one_block_of_measured_numbers() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert text.count(page.BEGIN) == text.count(page.END) == 1 and "goals met" in text


def test_pil_bench_writes_json_and_page_and_stays_out_of_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    assert main(["bench", "--tiny", "--job", "vol", "--runs", str(runs)]) == 0
    folder = next((runs / "bench").iterdir())
    assert sorted(p.name for p in folder.iterdir()) == ["bench.json", "report.html"]
    assert json.loads((folder / "bench.json").read_text())["effort"] == "tiny" and read_runs(runs) == []
    assert "goals met" in capsys.readouterr().out
    monkeypatch.setattr("pil_research.research.report.package_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="run from a checkout") as caught:
        bench.benchmark_script()
    assert caught.value.code == "NO_BENCHMARKS"
