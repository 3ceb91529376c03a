"""Raw files to panel in one command: the word after --data, the import, the check's record, its page, and the index's link."""
from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import market_files
import pytest
from fake_runs import CODE, DATA, fake_job, fake_run

from pil_research.cli import main
from pil_research.research import check_tables, data_check, data_import, index, panel_check, panel_files, validate
from pil_research.research.data_check import (
    PAGE,
    RECORD,
    TREATMENT,
    data_check_html,
    matching_record,
    prepare_data,
    rule_table,
)
from pil_research.research.ladder_inputs import load_data
from pil_research.research.page import LIMIT_BYTES
from pil_research.research.panel_source import panel_source, source_panel
from pil_research.research.prints import RULES
from pil_research.types import InputError


@pytest.fixture(scope="module", autouse=True)
def one_code() -> Iterator[None]:
    """The import is kept under a hash of the code, which may be edited while tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_check, "source_hash", lambda: "sha256:fixed")
        yield


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return market_files.write(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def done(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Runs folder and panel folder."""
    runs = tmp_path_factory.mktemp("runs")
    return runs, Path(prepare_data(str(raw), runs))


# --- the word after --data


def test_words_and_folders_are_told_apart(raw: Path, done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIL_SHARED_DATA", str(raw))
    kinds = {w: panel_source(w).kind for w in ("default", "synthetic", "shared", "shared:both", "shared:futures", "shared:etf")}
    assert list(kinds.values()) == ["default", "synthetic", "shared", "shared", "futures-long", "etf"]
    assert panel_source("shared:etf").name == "shared-etf" and panel_source("shared").folder == raw
    assert panel_source(str(raw)).kind == "shared" and panel_source(str(raw)).raw
    assert panel_source(str(done[1])).kind == "panel" and not panel_source(str(done[1])).raw


@pytest.mark.parametrize(("word", "code"), [("shared:bonds", "UNKNOWN_KIND"), ("no/such/folder", "NO_FOLDER"),
                                            ("shared", "NO_FOLDER")])
def test_a_word_that_means_nothing_is_a_typed_error(word: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIL_SHARED_DATA", raising=False)
    with pytest.raises(InputError) as error:
        panel_source(word)
    assert error.value.code == code


def test_only_raw_files_are_made_into_a_panel(done: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="raw market files"):
        source_panel(panel_source(str(done[1])))


# --- the import


def test_the_panel_in_memory_is_the_panel_on_disk(raw: Path, done: tuple[Path, Path]) -> None:
    asked = {"start": "2012-06-01", "end": "2014-06-30"}
    memory, disk = load_data({**asked, "data": str(raw)}), load_data({**asked, "data": str(done[1])})
    assert memory.fingerprint() == disk.fingerprint() and memory.name == disk.name == "shared-markets"
    assert f"{memory.dates[0]:%Y-%m-%d}" == "2012-06-01"


def test_the_same_files_are_imported_once(raw: Path, done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_import, "import_source", lambda *a, **k: pytest.fail("imported again"))
    said: list[str] = []
    assert prepare_data(str(raw), done[0], said.append) == str(done[1])
    assert "imported before" in said[0]


def test_a_changed_file_or_changed_code_imports_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = market_files.write(tmp_path / "raw")
    monkeypatch.setenv("PIL_SHARED_DATA", str(raw))
    first = Path(prepare_data("shared:etf", tmp_path / "runs"))
    frame = market_files.tables()["etf_daily"].copy()
    frame.loc[len(frame) // 2, "close_tr"] *= 1.01
    market_files.write(raw, {"etf_daily": frame})
    second = Path(prepare_data("shared:etf", tmp_path / "runs"))
    assert second != first and second.is_dir() and not first.exists()  # the old one went
    monkeypatch.setattr(data_check, "source_hash", lambda: "sha256:other")
    assert Path(prepare_data("shared:etf", tmp_path / "runs")) != second


def test_a_stopped_import_leaves_no_panel(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(kind: str, folder: Path, to: Path) -> None:
        to.mkdir()
        (to / "returns.parquet").write_text("half")
        raise KeyboardInterrupt
    monkeypatch.setattr(data_import, "import_source", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_data(str(raw), tmp_path)
    assert not [p for p in (tmp_path / "panels").iterdir() if not p.name.startswith(".")] and not (tmp_path / RECORD).exists()
    monkeypatch.undo()
    assert Path(prepare_data(str(raw), tmp_path)).is_dir()


@pytest.mark.parametrize("word", ["default", "synthetic"])
def test_data_of_the_package_needs_nothing(word: str, tmp_path: Path) -> None:
    assert prepare_data(word, tmp_path / "runs") == word and not (tmp_path / "runs").exists()


def test_a_panel_with_an_error_stops_here(done: tuple[Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(done[1], bad)
    (bad / "sleeves.toml").write_text('["trend"]\nrole = "heroic"\n')
    with pytest.raises(InputError, match="must have no errors"):
        prepare_data(str(bad), tmp_path / "runs")


# --- the record and the page


def test_every_finding_carries_a_rule(done: tuple[Path, Path]) -> None:
    record = json.loads((done[0] / RECORD).read_text())
    assert {d["stage"] for d in record["findings"]} == {"import", "panel"}
    for d in record["findings"]:
        assert d["rule"] == (RULES if d["stage"] == "import" else TREATMENT)[d["code"]]
    assert len(record["files"]) == 6 and all(len(f["sha256"]) == 64 for f in record["files"])
    rows = rule_table(record)
    assert sum(r["findings"] for r in rows) == len(record["findings"])


def _codes(module: Any) -> set[str]:
    """Codes of warnings and infos that a module can raise."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("defect", "Defect"):
            named = [k.value for k in node.keywords if k.arg in ("severity", "code")]
            words = [n.value for a in (*node.args[:1], *node.args[2:3], *named) for n in ast.walk(a)
                     if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            if {"warning", "info"} & set(words):
                found |= {w for w in words if w.isupper()}
    return found


def test_no_warning_of_the_panel_check_is_without_a_treatment() -> None:
    codes = _codes(check_tables) | _codes(panel_check) | _codes(panel_files)
    assert len(codes) > 15 and codes <= set(TREATMENT)


def test_the_page_says_what_was_found_and_loads_nothing(done: tuple[Path, Path]) -> None:
    record = json.loads((done[0] / RECORD).read_text())
    page = data_check_html(record, {"a <note>": ["ladder"]}, ["ladder: RuntimeWarning: divide by zero"])
    assert len(page.encode()) < LIMIT_BYTES and "a &lt;note&gt;" in page and "divide by zero" in page
    assert "1 warnings without a rule" in page and record["files"][0]["sha256"] in page
    for row in rule_table(record):
        assert row["code"] in page


def test_a_hundred_findings_of_a_kind_are_cut_on_the_page_and_said() -> None:
    row = {"stage": "panel", "severity": "warning", "file": "returns", "code": "FROZEN", "what": "x", "column": "A", "date": "",
           "rule": TREATMENT["FROZEN"]}
    record = {"name": "n", "source": "panel", "files": [], "panel": {}, "findings": [row] * 100}
    page = data_check_html(record, {}, [])
    assert "the first 60 of 100" in page and "None." in page


# --- validate and index


def test_validate_gives_every_report_the_imported_panel(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def plan(report: str, profile: str, given: dict[str, Any], runs: Path) -> validate.Job:
        asked.append(given["data"])
        return fake_job(Path(runs), report, "")
    monkeypatch.setattr(validate, "plan_job", plan)
    monkeypatch.setattr(validate, "source_hash", lambda: CODE["source"])
    monkeypatch.setattr(validate.Expected, "data", lambda self, params: DATA)
    said: list[str] = []
    validate.validate(tmp_path, given={"data": str(raw)}, reports=("ladder", "stress"), say=said.append)
    assert len(set(asked)) == 1 and Path(asked[0]).is_relative_to(tmp_path / "panels") and said[0].startswith("data: imported")


def _runs(tmp_path: Path, name: str, end: str) -> Path:
    fake_run(tmp_path, "ladder")
    record = {"schema": data_check.SCHEMA, "name": name, "source": "shared", "files": [], "panel": {"last": end}, "findings": [
        {"stage": "import", "severity": "warning", "file": "f", "code": "OUTAGE", "what": "w", "column": "", "date": "",
         "rule": RULES["OUTAGE"]}]}
    (tmp_path / RECORD).write_text(json.dumps(record))
    index.build_index(tmp_path)
    return tmp_path


def test_the_index_links_the_check_of_its_own_panel(tmp_path: Path) -> None:
    (tmp_path / ".logs").mkdir()
    (tmp_path / ".logs" / "ladder.log").write_text("fine\nx.py:3: RuntimeWarning: overflow\nx.py:3: RuntimeWarning: overflow\n")
    runs = _runs(tmp_path, "made up", "2021-12-31")
    book = json.loads((runs / "index.json").read_text())
    assert book["data_check"]["findings"] == 1
    assert book["data_check"]["without_rule"] == ["ladder: RuntimeWarning: overflow"]
    assert f'href="{PAGE}"' in (runs / "index.html").read_text() and "overflow" in (runs / PAGE).read_text()


@pytest.mark.parametrize(("name", "end"), [("another", "2021-12-31"), ("made up", "2020-12-31")])
def test_the_index_does_not_link_the_check_of_another_panel(tmp_path: Path, name: str, end: str) -> None:
    runs = _runs(tmp_path, name, end)
    assert json.loads((runs / "index.json").read_text())["data_check"] is None
    assert not (runs / PAGE).exists() and PAGE not in (runs / "index.html").read_text()
    assert matching_record(tmp_path / "nowhere", {"name": name}) is None


# --- the command line


def test_a_book_straight_from_raw_files(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["book", "--data", str(raw), "--start", "2012-01-03"]) == 0
    assert "2014-12-31" in capsys.readouterr().out


def test_a_wrong_folder_is_one_line_and_a_remedy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["validate", "--data", str(tmp_path / "none"), "--runs", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert "NO_FOLDER" in said and "fix: see pil validate --help" in said
