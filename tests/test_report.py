"""Pages, result.json, run folders and the index."""
from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from pil_research.config import PILConfig
from pil_research.research import index, ladder_run, page, report, runner, templates
from pil_research.research.example_study import ExampleStudy, example_study
from pil_research.research.ladder_page import ladder_html, uplift_table
from pil_research.research.ladder_result import LadderResult, ladder_result
from pil_research.types import InputError, InvariantError

RUN = "20260302T203000Z-3f9c1a"
VOID = {"meta", "br", "hr", "img", "input", "path", "use", "rect", "wbr"}


class Outline(HTMLParser):
    """Tags seen, and whether they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def study() -> ExampleStudy:
    return example_study(seed=3, n_days=900, edge=0.03, own_risk=0.15)


@pytest.fixture(scope="module")
def result(study: ExampleStudy) -> LadderResult:
    return ladder_result(study, kelly=0.5, n_draws=500)


@pytest.fixture(scope="module")
def html(study: ExampleStudy, result: LadderResult) -> str:
    return ladder_html(result, study, study.panel_facts, {"run_id": RUN})


@pytest.fixture
def run_folder(study: ExampleStudy, result: LadderResult, tmp_path: Path) -> Path:
    out = tmp_path / "runs" / "ladder" / RUN
    ladder_run.write_ladder_run(result, study, study.panel_facts, PILConfig(), out, run_id=RUN, params={"data": "example"})
    return out


def test_page_structure(html: str) -> None:
    o = Outline()
    o.feed(html)
    names = [t for t, _ in o.tags]
    assert not o.open and names.count("h1") == 1 and ("html", {"lang": "en"}) in o.tags
    assert all(a.get("scope") in ("col", "row") for t, a in o.tags if t == "th")
    svgs = [a for t, a in o.tags if t == "svg"]
    assert len(svgs) >= 6 and all(a["role"] == "img" and a["aria-label"] for a in svgs)
    assert names.count("figcaption") == names.count("figure") == len(svgs)
    ids = [a["id"] for _, a in o.tags if "id" in a]
    assert len(ids) == len(set(ids))
    order = [html.index(x) for x in ('class="verdict', 'class="lead"', "Net value", "Costs and break-even", "What bound",
                                     "Calendar years", "What diversification gave", "Data and method")]
    assert order == sorted(order)


def test_page_is_self_contained_and_small(html: str) -> None:
    assert len(html.encode()) < 500_000
    assert not re.search(r'(src|href)="(https?:)?//', html)
    assert "prefers-color-scheme:dark" in html and "@media print" in html and "<script" not in html


def test_page_at_full_length_stays_under_the_limit() -> None:
    s = example_study(seed=1, n_days=7500, rungs=("HRP", "ERC", "inverse-vol", "1/N-risk", "1/N nominal", "min-variance",
                                                 "NCO", "legacy"))
    assert len(ladder_html(ladder_result(s, kelly=0.5, n_draws=200), s, s.panel_facts).encode()) < 400_000


def test_page_says_what_the_result_says(html: str, result: LadderResult) -> None:
    v = result.verdict
    assert page.text(v.headline) in html and v.status in html and f"run {RUN}" in html and "synthetic" in html
    assert "no market" in html and "kelly·σ_P" in html and "0.85 to 1.05" in html
    assert "0.88 (seed 0.82)" in html and (uplift_table().map(lambda c: "seed" in c).to_numpy().sum() == 5)


@pytest.mark.parametrize(("lead", "said"), [
    (14.94, "HRP's Sharpe lead over 1/N-risk is gone at 14.9 times the charged cost"),
    (0.0, "HRP has no Sharpe lead over 1/N-risk even before costs"),
    (np.inf, "HRP's Sharpe lead over 1/N-risk survives any cost multiple up to 50")])
@pytest.mark.parametrize(("again", "tail"), [(0.514, "; walked again at 2×, its lead is +0.01."), (np.nan, ".")])
def test_costs_say_what_is_held_fixed(lead: float, said: str, again: float, tail: str, study: ExampleStudy,
                                      result: LadderResult) -> None:
    costs = result.costs.copy()
    costs.loc["HRP", ["lead_lost_at", "sharpe_2x"]] = lead, again
    costs.loc["1/N-risk", "sharpe_2x"] = 0.5
    assert page.text(f"With trades held fixed, {said}{tail} HRP itself") in ladder_html(replace(result, costs=costs), study, {})


@pytest.mark.parametrize("status", ["PASS", "FAIL", "INDIFFERENT"])
def test_verdict_box_has_sign_word_and_class(status: str, study: ExampleStudy, result: LadderResult) -> None:
    action = "ship_hrp" if status == "PASS" else "ship_1n_risk"
    text = ladder_html(replace(result, verdict=replace(result.verdict, status=status, action=action)), study, {})
    assert f'class="verdict {status.lower()}"' in text and f"</span> {status}" in text
    assert ("It ships only if" in text) == (status == "PASS")


def test_without_sleeve_returns_the_uplift_is_not_claimed(study: ExampleStudy) -> None:
    bare = replace(study, panel_facts={"name": "x"})
    r = ladder_result(bare, kelly=0.5, n_draws=200)
    assert r.uplift is None and "not measured" in ladder_html(r, bare, {})


@pytest.mark.parametrize("leak", ['<img src="https://x.org/a.png">', "<img src='//x.org/a.png'>", "<script>1</script>",
                                  '<link rel="stylesheet" href="a.css">', "<style>@import 'a'</style>",
                                  '<p style="background:url(https://x.org/a)">', "<h1>second</h1>", "x" * 500_001])
def test_leaking_or_heavy_pages_are_refused(leak: str) -> None:
    with pytest.raises(InvariantError, match="report page"):
        page.page_html("t", leak)


def test_names_cannot_become_markup() -> None:
    out = page.table_html(pd.DataFrame({"x": [1.0]}, ["<b>&"]), {"x": ("<i>", ".1f")}, caption="<u>", corner="<s>")
    assert not re.search(r"<(b|i|u|s)>", out)
    assert page.number(np.nan, "text") == page.number(None, "text") == page.number(pd.NaT, "text") == "–"
    assert page.number(np.nan) == "–" and page.number(-0.004) == "0.00" and page.number(-1.5) == "−1.50"
    assert page.number(np.inf) == "∞" and page.number("<") == "&lt;" and page.number(0.123, ".1%") == "12.3"


def test_run_folder(run_folder: Path, study: ExampleStudy) -> None:
    envelope = json.loads((run_folder / "result.json").read_text())
    report.check_envelope(envelope)
    assert envelope["verdict"]["action"] in ("ship_hrp", "ship_1n_risk") and envelope["config_hash"].startswith("sha256:")
    for f in envelope["files"]:
        import hashlib
        assert hashlib.sha256((run_folder / f["path"]).read_bytes()).hexdigest() == f["sha256"]
    back = pd.read_parquet(run_folder / "data" / "net_returns_lag0.parquet")
    np.testing.assert_array_equal(back.to_numpy(), study.base.returns.to_numpy())
    weights = pd.read_parquet(run_folder / "data" / "weights.parquet")
    assert list(weights.columns) == ["rung", "date", "sleeve", "weight"] and set(weights["rung"]) == set(study.rungs)
    assert PILConfig.load(run_folder / "config.toml") == PILConfig()
    for path in (run_folder / "result.json", run_folder / "report.html", run_folder / "config.toml"):
        assert str(Path.home()) not in path.read_text() and str(run_folder) not in path.read_text()


@pytest.mark.parametrize(("change", "where"), [
    ({"run_id": "../x"}, "run_id"), ({"verdict": {"status": "good", "headline": "h", "action": "none"}}, "verdict/status"),
    ({"config_hash": "abc"}, "config_hash"), ({"extra": 1}, "the top"), ({"files": [{"path": "/etc/x", "sha256": "0" * 64}]},
                                                                        "files/0/path")])
def test_envelope_is_strict(run_folder: Path, change: dict, where: str) -> None:
    envelope = json.loads((run_folder / "result.json").read_text())
    with pytest.raises(InputError, match=re.escape(where)):
        report.check_envelope({**envelope, **change})


def test_index_lists_runs_and_flags_disagreement(run_folder: Path) -> None:
    runs = run_folder.parents[1]
    text = index.build_index(runs).read_text()
    assert f'href="ladder/{RUN}/report.html"' in text and 'role="alert"' not in text
    other = json.loads((run_folder / "result.json").read_text())
    second = runs / "stress" / "20260303T203000Z-00aa11"
    second.mkdir(parents=True)
    changed = {**other, "report": "stress", "run_id": second.name, "config_hash": "sha256:" + "0" * 64}
    (second / "result.json").write_text(json.dumps(changed))
    assert 'role="alert"' in index.build_index(runs).read_text()
    (second / "result.json").write_text("{broken")
    assert "damaged" in index.build_index(runs).read_text()
    book = json.loads((runs / "index.json").read_text())
    assert [r["run_id"] for r in book["runs"]][-1] == RUN and len(book["runs"]) == 2


def test_damage_is_found(run_folder: Path) -> None:
    runs = run_folder.parents[1]
    (run,) = report.read_runs(runs)
    assert report.damage_of(runs, run) == [] and report.newest_runs([run])["ladder"]["run_id"] == RUN
    (run_folder / "data" / "weights.parquet").unlink()
    (run_folder / "config.toml").write_text("")
    assert report.damage_of(runs, run) == ["config.toml was changed", "data/weights.parquet is gone"]
    (run_folder / "result.json").unlink()
    (run,) = report.read_runs(runs)
    assert run["damaged"] and report.damage_of(runs, run) == ["result.json is absent"]


def test_parameters_keep_no_folder(study: ExampleStudy, result: LadderResult, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "ladder" / RUN
    ladder_run.write_ladder_run(result, study, study.panel_facts, PILConfig(), out, run_id=RUN,
                                params={"data": str(tmp_path / "panel"), "config": "", "draws": 5})
    assert json.loads((out / "result.json").read_text())["params"] == {"data": "panel", "config": "", "draws": 5}
    assert str(tmp_path) not in (out / "report.html").read_text()


def test_run_ids_sort_by_time_and_hide_the_machine() -> None:
    a = report.new_run_id({"x": 1}, datetime(2026, 3, 2, 20, 30, tzinfo=UTC))
    b = report.new_run_id({"x": 1}, datetime(2026, 3, 2, 20, 31, tzinfo=UTC))
    assert a < b and re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", a)


@pytest.mark.parametrize(("given", "message"), [
    ({"lokback": 1}, "unknown parameter"), ({"draws": "many"}, "must be a whole number"), ({"draws": True}, "a whole number"),
    ({"start": 1990}, "must be text"), ({"start": "1990"}, "must be a date")])
def test_parameters_are_checked_before_anything_runs(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        runner.check_parameters("ladder", given)
    with pytest.raises(InputError, match="report must be one of"):
        runner.template_path("nosuch")
    with pytest.raises(InputError, match="profile"):
        runner.load_profile("ladder", "../smoke")


@pytest.mark.parametrize("profile", ["smoke", "full"])
def test_profiles_name_known_parameters(profile: str) -> None:
    assert runner.check_parameters("ladder", runner.load_profile("ladder", profile))["draws"] == 10_000
    assert runner.TEMPLATES is templates.TEMPLATES  # the runner passes the names on


def test_template_is_committed_without_outputs() -> None:
    nb = nbformat.read(runner.template_path("ladder"), as_version=4)
    tagged = [c for c in nb.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1 and all(not c.outputs for c in nb.cells if c.cell_type == "code")
    assert set(runner.template_defaults(runner.template_path("ladder"))) >= {"data", "start", "end", "config", "run_id"}


def test_executed_notebook_names_no_machine_path(tmp_path: Path) -> None:
    executed = tmp_path / "executed.ipynb"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
        f"data = '{tmp_path}/panel'", outputs=[nbformat.v4.new_output("stream", name="stderr", text="50%"),
                                               nbformat.v4.new_output("stream", name="stdout", text=str(Path.home()))])])
    nb.metadata["papermill"] = {"input_path": "/a/b.ipynb", "output_path": str(executed)}
    nbformat.write(nb, executed)
    runner._scrub(executed, runner.template_path("ladder"), {"data": f"{tmp_path}/panel", "config": ""})
    text = executed.read_text()
    assert str(tmp_path) not in text and str(Path.home()) not in text and "50%" not in text and "panel" in text
