"""The line that says what changed since the run before."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fake_runs import CODE, fake_run

from pil_research.config import PILConfig
from pil_research.research import report as report_module
from pil_research.research.changes import changes_line, moved_checks, what_differs, with_changes
from pil_research.research.page import page_html
from pil_research.research.report import write_run


def line_of(folder: Path) -> str:
    page = (folder / "report.html").read_text(encoding="utf-8")
    (line,) = [x for x in page.split("<p ") if x.startswith('class="sub changes">')]
    return line.partition(">")[2].partition("</p>")[0]


def test_the_first_run_says_so(tmp_path: Path) -> None:
    assert line_of(fake_run(tmp_path, "ladder", n=1)) == "First run of this report in this folder."


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    fake_run(tmp_path, "ladder", n=1)
    assert line_of(fake_run(tmp_path, "ladder", n=2)) == (
        "Since the run of 2026-03-01 00:00 UTC: nothing that was asked differs; no check moved.")


def test_what_was_asked_and_what_moved_are_named(tmp_path: Path) -> None:
    fake_run(tmp_path, "ladder", n=1)
    fake_run(tmp_path, "stress", n=2)  # another report is no run before
    line = line_of(fake_run(tmp_path, "ladder", n=3, data="sha256:" + "cd" * 32, params={"draws": 5}, status="fail",
                            config=PILConfig().replace(**{"sizing.kelly": 0.4}),
                            ladder__prob_hrp_better_lag0={"value": 0.95},
                            ladder__prob_hrp_better_lag1={"value": 0.5, "status": "fail"}))
    assert line == ("Since the run of 2026-03-01 00:00 UTC: other data, configuration, parameters; "
                    "ladder.prob_hrp_better_lag1 0.93 → 0.5 (pass → fail); ladder.prob_hrp_better_lag0 0.97 → 0.95.")


def test_only_older_runs_count_and_a_damaged_one_is_said(tmp_path: Path) -> None:
    fake_run(tmp_path, "ladder", n=5)
    assert line_of(fake_run(tmp_path, "ladder", n=2)).startswith("First run")
    (tmp_path / "ladder" / "20260301T000005Z-000005" / "result.json").write_text("{")
    assert "is damaged: what changed since is not known" in line_of(fake_run(tmp_path, "ladder", n=6))


def test_missing_values_new_and_lost_checks() -> None:
    def run(**values: float | None) -> dict[str, Any]:
        return {"checks": [{"id": k, "value": v, "status": "pass"} for k, v in values.items()], "data": {}, "code": {},
                "config_hash": "", "params": {}, "run_id": "20260301T203000Z-3f9c1a"}
    assert moved_checks(run(a=1.0, b=None), run(a=None, b=None))[0]["change"] is None
    line = changes_line(run(a=1.0, b=2.0), run(a=None, c=1.0))
    assert line.endswith("a – → 1; 1 checks are new; 1 checks are gone.")
    many = changes_line(run(**{f"k{i}": float(i) for i in range(9)}), run(**dict.fromkeys((f"k{i}" for i in range(9)), -1.0)))
    assert many.count("→") == 3 and "and 6 more" in many and what_differs(run(), run()) == []
    assert changes_line(run(), {"run_id": "<b>", "damaged": True}).startswith("The run before, of <b>")


def test_names_are_escaped_and_the_page_is_checked() -> None:
    out = with_changes(page_html("A"), "<script>1</script>")
    assert "<script" not in out and "&lt;script&gt;" in out and with_changes("no page", "x") == "no page"


def test_it_is_small_on_the_first_screen_and_recorded_nowhere_else(tmp_path: Path) -> None:
    fake_run(tmp_path, "ladder", n=1)
    result = json.loads((fake_run(tmp_path, "ladder", n=2) / "result.json").read_text())
    assert "changes" not in json.dumps(result)


def test_a_folder_of_another_name_has_no_run_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_run(tmp_path, "ladder", n=1)
    pages: list[str] = []
    out = tmp_path / "elsewhere" / "x"
    with mock.patch.object(report_module, "code_version", lambda: CODE):
        write_run("ladder", out, run_id="20260302T000000Z-000000", page=lambda run: pages.append("") or page_html("L"),
                  config=PILConfig(), facts={"name": "n", "source": "s", "hash": "sha256:" + "0" * 64, "start": "2020-01-01",
                                             "end": "2020-02-01", "n_obs": 1, "n_symbols": 1},
                  verdict={"status": "pass", "word": "PASS", "headline": "h", "action": "none"}, checks=[], tables={}, frames={})
    assert pages and line_of(out).startswith("First run")
