"""The command line: exit codes, messages, speed, and the README builder."""
from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from fake_runs import fake_run, passing_runs

from pil_research import cli
from pil_research.config import PILConfig
from pil_research.market import Market
from pil_research.types import InputError

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("demo", "report", "validate", "verdict", "index", "data", "config", "book", "doctor")


def test_help_imports_nothing_heavy() -> None:
    code = ("import sys\nfrom pil_research.cli import build_parser\ntext = build_parser().format_help()\n"
            "heavy = {'numpy','pandas','scipy','matplotlib','papermill','sklearn'} & set(sys.modules)\n"
            "assert not heavy, heavy\nprint(text)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(c in done.stdout for c in COMMANDS)


def test_module_runs_as_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "pil_research", "config", "check"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0 and "defaults: valid, sha256:" in done.stdout


def test_config_show_and_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["config", "show"]) == 0
    shown = capsys.readouterr().out
    file = tmp_path / "pil.toml"
    file.write_text(shown)
    assert PILConfig.load(file) == PILConfig() and cli.main(["config", "check", str(file)]) == 0
    file.write_text("[sizing]\nkely = 0.5\n")
    capsys.readouterr()
    assert cli.main(["config", "check", str(file)]) == 2
    err = capsys.readouterr().err.strip().split("\n")
    assert len(err) == 2 and err[0].startswith("pil: CONFIG_UNKNOWN_KEY: unknown key sizing.kely") and "kelly" in err[1]
    assert cli.main(["config", "check", str(tmp_path / "none.toml")]) == 2


def test_config_show_says_where_each_value_comes_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "desk.toml"
    file.write_text("# of the desk\nvol_target.target = 0.08\n[caps]\nname = 0.15\n[sizing]\nkelly = 0.25\n"
                    "[schedule]\nslots = ['15:30']\n")
    assert PILConfig().to_dict()["caps"]["name"] == 0.15, "a key that repeats its default is the file's all the same"
    assert cli.main(["config", "show", str(file), "--resolved"]) == 0
    out = capsys.readouterr().out
    lines, loaded = out.splitlines(), PILConfig.load(file)
    assert tomllib.loads(out) == tomllib.loads(loaded.to_toml()), "what is printed is that configuration"
    assert [x for x in lines if "desk.toml" in x] == [
        "target = 0.08  # desk.toml, default 0.1", "name = 0.15  # desk.toml", "kelly = 0.25  # desk.toml, default 0.5",
        'slots = ["15:30"]  # desk.toml, default ["09:35", "12:00", "14:00", "15:30"]']
    assert sum(x.endswith("  # default") for x in lines) == sum(map(len, loaded.to_dict().values())) - 4
    assert cli.main(["config", "show", "--resolved"]) == 0 and capsys.readouterr().out.count("# default") == len(
        [x for x in PILConfig().to_toml().splitlines() if " = " in x])
    file.write_text("[caps]\nnames = 0.2\n")
    assert cli.main(["config", "show", str(file), "--resolved"]) == 2 and "caps.names" in capsys.readouterr().err


def test_debug_shows_the_traceback_and_keeps_the_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--debug", "config", "check", str(tmp_path / "x")], ["config", "check", str(tmp_path / "x"), "--debug"]):
        assert cli.main(argv) == 2
        said = capsys.readouterr().err
        assert said.startswith("Traceback") and said.splitlines()[-2].startswith("pil: CONFIG_FILE: ")


def test_usage_errors_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["nosuch"], ["data", "mend", "x"], ["report"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(argv)
        assert stop.value.code == 2
    assert cli.main(["report", "nosuch"]) == 2
    assert "report must be one of" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "cause", "fix"), [
    ("reprot ladder", "USAGE: argument command: invalid choice: 'reprot'", "did you mean report? `pil --help`"),
    ("", "USAGE: the following arguments are required: command", "`pil --help`"),
    ("config shwo", "USAGE: argument action: invalid choice: 'shwo'", "did you mean show? `pil config --help`"),
    ("book --equty 3", "USAGE: pil book does not know --equty 3", "did you mean --equity? `pil book --help`"),
    ("validate --start 2020-01-01", "USAGE: pil validate does not know --start 2020-01-01", "`pil validate --help`"),
    ("index nowhere", "NO_RUNS: there is no folder of runs at nowhere", "`pil validate` makes one"),
    ("index a --runs b", "BAD_PARAMETER: two folders of runs, a and b", "give one"),
    ("verdict --out nowhere", "NO_RUNS: there is no folder of runs at nowhere", "`pil validate` makes one"),
    ("report overfit --data nowhere --out r", "NO_SUCH_PATH: data names nowhere", "correct the path"),
    ("validate --data nowhere --out r", 'NO_FOLDER: data must be "default", "synthetic"', "see pil validate --help"),
    ("book --data synthetic --asof 2020", "asof must be a date, got '2020'", "year-month-day"),
    ("book --data synthetic --asof 2020-01-31T15:30", "asof must be a date or a time with its offset", "2020-01-31T15:30-05:00"),
    ("book --data synthetic --asof 2020-01-31T9", "asof must be a date or a time with its offset", "2020-01-31T15:30-05:00"),
    ("report ladder --set drws=10 --runs r", "UNKNOWN_PARAMETER: unknown parameter 'drws' of report ladder",
     "did you mean draws? known: "),
    ("demo --jobs two", "USAGE: argument --jobs: invalid int value: 'two'", "`pil demo --help`"),
    ("report ladr", "UNKNOWN_REPORT: report must be one of ladder, ", "did you mean ladder? name one of these"),
    ("report ladder --profile smok", "UNKNOWN_PROFILE: profile must be one of", "name one that exists"),
    ("report ladder --data nowhere --runs r", "NO_SUCH_PATH: data names nowhere", "correct the path"),
    ("report ladder --config nowhere.toml --runs r", "NO_SUCH_PATH: config names nowhere.toml", "correct the path"),
    ("report ladder --data synthetic --start 2020-13-40 --runs r", "start must be a date, got '2020-13-40'", "year-month-day"),
    ("report ladder --data synthetic --end 01/02/2020 --runs r", "end must be a date, got '01/02/2020'", "year-month-day"),
    ("book --data synthetic --start 2020", "start must be a date, got '2020'", "year-month-day"),
    ("book --data synthetic --start 2030-01-01", "EMPTY_PERIOD: the data hold no session from 2030-01-01", "other dates"),
    ("report ladder --data synthetic --draws -5 --runs r", "parameter draws must be at least 1, got -5", "a larger number"),
    ("shadow --approval nowhere.json --runs r", "NO_SUCH_PATH: approval names nowhere.json", "correct the path"),
    ("shadow --since 2020-01-02", "USAGE: --since is for a journal", "give --store"),
    ("demo --jobs 0 --runs r", "BAD_JOBS: jobs must be at least 1, got 0", "2 suits most machines"),
    ("verdict nowhere", "NO_RUNS: there is no folder of runs at nowhere", "`pil validate` makes one"),
    ("config check nowhere.toml", "CONFIG_FILE: there is no configuration file nowhere.toml", "`pil config show`"),
    ("data check nowhere", "NO_FOLDER: a panel is a folder, got nowhere", "the path of an existing one"),
    ("data import etf nowhere --to y", "NO_FOLDER: a source is a folder, got nowhere", "the path of an existing one"),
    ("data import futures-lon x --to y", "UNKNOWN_SOURCE: source must be one of", "did you mean futures-long? name one of these"),
    ("bog", "USAGE: argument command: invalid choice: 'bog'", "did you mean book?"),
    ("--debg book", "USAGE: pil does not know --debg", "did you mean --debug?"),
    ("index --runs nowhere", "NO_RUNS: there is no folder of runs at nowhere", "`pil validate` makes one"),
    ("book --config nowhere.toml", "CONFIG_FILE: there is no configuration file nowhere.toml", "`pil config show`"),
    ("drill --only writers --writers 1", "BAD_COUNT: the count of writers must be 0 or a whole number from 2 to 16",
     "correct it"),
    ("replay nowhere.sqlite --tolerance 1", "BAD_ARGUMENT: --tolerance must be 0 to 1e-6", "1e-12 passes over last bits"),
    ("data import nosuch x --to y", "UNKNOWN_SOURCE: source must be one of", "name one of these"),
    ("paper p --data synthetic:a,b", "BAD_PARAMETER: --data synthetic:K,M,DAYS needs three whole numbers", "synthetic:5,15,900"),
    ("drill --only clock --clock 0", "BAD_COUNT: every count is 0", "give one of at least 1"),
    ("book --equity -1", "USAGE: argument --equity: must be a number above 0, got '-1'", "`pil book --help`"),
    ("verdict runs --days 0", "USAGE: argument --days: must be a whole number at least 1, got '0'", "`pil verdict --help`"),
    *((f"paper p --{words}", f"USAGE: argument --{words.split()[0]}: must be a {kind} {limit}, got", "`pil paper --help`")
      for words, kind, limit in (
          ("partial 2", "number", "from 0 to 1"), ("reject -0.1", "number", "from 0 to 1"),
          ("partial x", "number", "from 0 to 1"),
          ("sessions -1", "whole number", "at least 0"), ("sessions 1.5", "whole number", "at least 0"),
          ("equity -5", "number", "above 0"), ("equity 0", "number", "above 0"), ("equity inf", "number", "above 0"),
          ("speed nan", "number", "at least 0"), ("seed -1", "whole number", "at least 0"),
          ("metrics 99999", "whole number", "from 1 to 65535"))),
    ("replay nowhere.sqlite", "MISSING: there is no store at nowhere.sqlite", "path of its database file"),
    ("adopt nowhere.sqlite --acknowledge --who a --why b", "MISSING: there is no store at", "`pil paper` makes one")])
def test_a_mistake_is_one_line_of_cause_and_one_of_remedy(words: str, cause: str, fix: str, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(words.split())
    except SystemExit as stop:
        code = stop.code
    said = [x for x in capsys.readouterr().err.splitlines() if x.strip() and not re.search(r"part/s\]|\?part|^Validation on", x)]
    assert code == 2 and len(said) == 2, said
    assert said[0].startswith("pil: ") and cause in said[0]
    assert said[1].startswith("fix: ") and fix in said[1] and "did you mean --gate" not in said[1]
    assert not list(tmp_path.glob("r/*/*"))


def test_a_period_chosen_by_hand_is_the_period_of_synthetic_data_too() -> None:
    from pil_research.research.ladder_inputs import load_data

    panel = load_data({"data": "synthetic", "start": "2018-01-01", "end": "2018-12-31"})
    assert str(panel.dates[0].date()) >= "2018-01-01" and str(panel.dates[-1].date()) <= "2018-12-31"


def test_report_options_are_the_templates_parameters() -> None:
    from pil_research.research.runner import template_defaults, template_path

    known = set(template_defaults(template_path("ladder")))
    assert set(cli.PARAMETERS) == known - {"run_id", "out_dir", "ledger"}


def test_set_is_checked_before_anything_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words, message in ((["--set", "draws"], "needs name=value"), (["--set", "draws=x"], "must be a whole number"),
                           (["--set", "nosuch=1"], "unknown parameter")):
        assert cli.main(["report", "ladder", "--runs", str(tmp_path), *words]) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_says_what_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object) -> int:
        raise KeyboardInterrupt
    monkeypatch.setattr(cli, "_validate", stop)
    assert cli.main(["demo"]) == 130 and "finished runs are kept" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "cause", "fix"), [
    (ZeroDivisionError(), "ZeroDivisionError: it gives no reason", "--debug for the traceback; it may be a defect"),
    (ValueError("a; b"), "ValueError: a; b", "it may be a defect"),
    (OverflowError("big"), "OverflowError: big", "it may be a defect"),
    (ModuleNotFoundError("No module named 'x'"), "No module named 'x'", "pil_research[research]"),
    (PermissionError(13, "Permission denied", "f"), "PermissionError: f: Permission denied", "you can read and write"),
    (OSError("odd"), "OSError: odd", "run again with --debug")])
def test_an_error_nobody_foresaw_is_two_lines_too(error: Exception, cause: str, fix: str, monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> int:
        raise error
    monkeypatch.setattr(cli, "_run", broken)
    assert cli.main(["report", "ladder"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[0].startswith("pil: ") and cause in said[0] and said[1].startswith("fix: ") and fix in said[1]


@pytest.mark.parametrize(("words", "cause"), [
    ("report explain --data synthetic --runs FILE", "NotADirectoryError: FILE/explain"),
    ("report explain --data synthetic --runs /proc/nope", "FileNotFoundError: /proc/nope: No such file or directory"),
    ("validate --data synthetic --profile smoke --runs FILE", "NotADirectoryError: FILE/.logs: Not a directory"),
    ("shadow --data synthetic --runs FILE --sessions 5", "NotADirectoryError: FILE/shadow"),
    ("config check FOLDER", "CONFIG_"),
    ("book --data synthetic --config FOLDER", "CONFIG_"),
    ("paper X --data synthetic --config FOLDER", "CONFIG_"),
    ("book --data synthetic --save-state /proc/x/y", "FileNotFoundError: /proc/x/y: No such file or directory"),
    ("new /proc/x", "FileNotFoundError: /proc/x: No such file or directory"),
    ("config check FILE", "CONFIG_TOML: "),
    ("paper X --data synthetic:3,8,500 --start bogus", "BAD_PARAMETER: start must be a date, got 'bogus'"),
    ("bench --runs FILE --job import", "NotADirectoryError: FILE/bench")])
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the cases need /proc")
def test_what_the_system_refuses_is_two_lines(words: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"\xff")
    places = {"FILE": str(tmp_path / "file"), "FOLDER": str(tmp_path)}

    def at(text: str) -> str:
        return re.sub("FILE|FOLDER", lambda m: places[m[0]], text)
    assert cli.main(at(words).split()) == 2
    said = [x for x in capsys.readouterr().err.splitlines() if x and not re.search(r"part/s\]|\?part", x)]
    assert len(said) == 2 and said[0].startswith(f"pil: {at(cause)}") and said[1].startswith("fix: "), said
    assert not (tmp_path / "X").exists()


def _piped(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line.replace("pil ", f"'{sys.executable}' -m pil_research ", 1)], cwd=ROOT,
                          capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_reader_that_goes_away_and_a_full_disk_give_no_verdicts_code(tmp_path: Path) -> None:
    passing_runs(tmp_path)
    for more in ("", "2>&1"):
        done = _piped(f"pil verdict {tmp_path} {more} | true; exit ${{PIPESTATUS[0]}}")
        assert done.returncode == 141 and not done.stderr
    if Path("/dev/full").exists():
        done = _piped(f"pil verdict {tmp_path} > /dev/full")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 2 and "No space left on device" in done.stderr
        assert _piped("pil config check /nowhere 2> /dev/full").returncode == 2


def test_gate_turns_a_reports_verdict_into_the_exit_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for n, (status, code) in enumerate((("pass", 0), ("fail", 1), ("error", 2), ("inconclusive", 3)), start=1):
        folder = fake_run(tmp_path, "sensitivity", n=n, status=status)
        monkeypatch.setattr("pil_research.research.runner.run_report", lambda *_, made=folder: made)
        words = ["report", "sensitivity", "--runs", str(tmp_path), "--set", "grid=reduced"]
        assert cli.main(words) == 0 and cli.main([*words, "--gate"]) == code


@pytest.mark.parametrize(("statuses", "gate"), [
    (("pass", "pass"), 0), (("pass", "inconclusive"), 3), (("inconclusive", "fail"), 1), (("fail", "error"), 2)])
def test_report_all_runs_them_all_and_judges_nothing(statuses: tuple[str, str], gate: int, monkeypatch: pytest.MonkeyPatch,
                                                     tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pil_research.research import validate

    asked: list[dict[str, object]] = []
    names = ("stress", "sensitivity")
    for name, status in zip(names, statuses, strict=True):
        fake_run(tmp_path, name, status=status)

    def done(runs: str, **settings: object) -> list[validate.Outcome]:
        asked.append(settings)
        return [validate.Outcome(report=name, state="done", seconds=0.0, headline=f"{name} said") for name in names]
    monkeypatch.setattr(validate, "validate", done)
    words = ["report", "all", "--runs", str(tmp_path), "--data", "synthetic", "--seed", "3", "--profile", "smoke"]
    assert cli.main(words) == (2 if gate == 2 else 0) and cli.main([*words, "--gate"]) == gate
    assert asked[0]["given"] == {"data": "synthetic", "seed": 3} and asked[0]["profile"] == "smoke"
    out = capsys.readouterr().out
    assert "stress: stress said\n" in out and f"index: {tmp_path / 'index.html'}" in out and (tmp_path / "index.html").is_file()
    assert not (tmp_path / "approval.json").exists() and "action" not in out
    assert cli.main([*words, "--set", "draws=5", "--set", "calibrate=false", "--cost-bps", "5"]) in (0, 2)
    assert asked[-1]["given"] == {"data": "synthetic", "seed": 3, "draws": 5, "calibrate": False, "cost_bps": 5.0}
    capsys.readouterr()
    for bad in ("draws=-1", "horizon=0", "sessions=0", "equity=-1", "cost_bps=1e9", "out_dir=elsewhere", "run_id=x"):
        assert cli.main([*words, "--set", bad]) == 2 and bad.partition("=")[0] in capsys.readouterr().err
    assert cli.main([*words, "--set", "drws=5"]) == 2 and "did you mean draws" in capsys.readouterr().err.lower()


def test_report_all_hands_every_parameter_on_as_it_is() -> None:
    from pil_research.research.validate import plan_job

    given = {"data": "synthetic", "markets": "all", "start": "2001-02-03", "seed": 3, "config": "desk.toml"}
    job = plan_job("ladder", "smoke", given, "runs")
    assert {k: job.params[k] for k in ("data", "markets", "start", "seed")} == {k: v for k, v in given.items() if k != "config"}
    assert job.params["config"] == str(Path("desk.toml").resolve()) and "start=2001-02-03" in job.command
    assert "cost_bps=5.0" in plan_job("stress", "smoke", {"cost_bps": 5.0}, "runs").command
    assert "calibrate" not in plan_job("stress", "smoke", {"calibrate": False}, "runs").params


def test_another_price_of_trading() -> None:
    from pil_research.research.ladder_inputs import load_data
    from pil_research.research.panel_arrays import panel_arrays

    asked = {"data": "synthetic", "start": "2018-01-01", "end": "2018-12-31"}
    own, flat = load_data(asked), load_data({**asked, "cost_bps": 5.0})
    assert load_data({**asked, "cost_bps": -1.0}).fingerprint() == own.fingerprint() != flat.fingerprint()
    costs, table = panel_arrays(flat), Market.from_frame(flat.instruments, flat.symbols)
    assert (costs.half_spread == 5e-4).all() and not (costs.fee.any() or table.impact.any() or table.assumed_impact.any())
    assert "5 basis points" in flat.notes[-1] and len(flat.notes) == len(own.notes) + 1
    for bad in (-3.0, 1e9, float("nan"), float("inf")):
        with pytest.raises(InputError, match="cost_bps must be 0 or more and at most 1000"):
            load_data({**asked, "cost_bps": bad})


@pytest.fixture
def no_reports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """`pil validate` finds every report done; what it was asked for is kept."""
    from pil_research.research import validate

    asked: list[dict[str, object]] = []

    def done(runs: str, **settings: object) -> list[validate.Outcome]:
        asked.append({"runs": runs, **settings})
        return [validate.Outcome(report="ladder", state="reused", seconds=0.0, headline="x")]
    monkeypatch.setattr(validate, "validate", done)
    return asked


def test_validate_ends_with_gates_action_and_index(no_reports: list[dict[str, object]], tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    runs = passing_runs(tmp_path, ("overfitting", "stress", "sensitivity"))
    assert cli.main(["validate", "--runs", str(runs), "--data", "x", "--jobs", "1", "--profile", "smoke"]) == 2  # no ladder
    assert no_reports[0]["given"] == {"data": "x", "config": None} and no_reports[0]["jobs"] == 1
    fake_run(runs, "ladder", n=2)
    assert cli.main(["verdict", str(runs)]) == 0
    out = capsys.readouterr().out
    assert "action: ship_hrp" in out and f"approval: {runs / 'approval.json'}" in out and f"index: {runs / 'index.html'}" in out


def test_demo_is_the_smoke_validation(no_reports: list[dict[str, object]], tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--runs", str(tmp_path)]) == 2  # an empty folder has no verdict
    assert no_reports[0]["profile"] == "smoke" and no_reports[0]["given"] == {"data": None, "config": None}
    assert "there is no run of ladder" in capsys.readouterr().out


def test_a_failed_report_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    from pil_research.research import validate

    monkeypatch.setattr(validate, "validate", lambda *_, **__: [validate.Outcome(
        report="guards", state="failed", seconds=1.0, headline="exit code 2: pil: BAD")])
    monkeypatch.setattr(cli, "_result_text", lambda ladder: "ladder table; action: none")
    passing_runs(tmp_path)
    assert cli.main(["validate", "--runs", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert "failed: guards: exit code 2" in shown.err and "ladder table; on the ladder alone: none" in shown.out
    assert cli.main(["validate", "--gate", "--runs", str(tmp_path)]) == 2


def test_doctor_looks_for_leaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from pil_research.research import leaks

    monkeypatch.setattr(leaks, "leaks_command", lambda folder: (2, [f"looked at {folder}"]))
    assert cli.main(["doctor", "--leaks", "panel"]) == 2 and "looked at panel" in capsys.readouterr().out


def test_data_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from pil_research.research.data import synthetic_panel, write_panel

    write_panel(synthetic_panel(1, n_sleeves=2, n_symbols=4, n_days=300), tmp_path / "good")
    assert cli.main(["data", "check", str(tmp_path / "good")]) == 0
    capsys.readouterr()
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "returns.csv").write_text("date,ES\n2020-01-02,0.1\n2020-01-02,0.2\n")
    assert cli.main(["data", "check", str(bad)]) == 2
    said = capsys.readouterr().out
    assert "fix: " in said and "[returns DUPLICATE_DATE]" in said
    assert re.search(r"^\d+ errors, \d+ warnings, \d+ notes in bad$", said, re.M)
    assert cli.main(["data", "check", str(tmp_path / "absent")]) == 2


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["doctor"])
    out = capsys.readouterr().out
    assert code in (0, 2) and all(w in out for w in ("numpy", "BLAS", "OPENBLAS_NUM_THREADS", "default data"))
    assert str(Path.home()) not in out


def test_book_of_a_synthetic_panel(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    assert cli.main(["book", "--data", "synthetic", "--save-state", str(state), "--json"]) == 0
    decision = json.loads(capsys.readouterr().out)
    assert decision["slot"] == "15:30" and abs(sum(decision["sleeve_weights"].values())) <= 1.0 + 1e-9
    assert cli.main(["book", "--data", "synthetic", "--state", str(state)]) == 0
    assert "target book of" in capsys.readouterr().out
    state.write_text("{")
    assert cli.main(["book", "--data", "synthetic", "--state", str(state)]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_report_end_to_end_on_synthetic_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert cli.main(["report", "ladder", "--data", "synthetic", "--draws", "300", "--runs", str(runs)]) == 0
    out = capsys.readouterr().out
    assert "1/N-risk" in out and "index.html" in out
    (folder,) = (runs / "ladder").iterdir()
    names = {p.name for p in folder.iterdir()}
    assert names == {"report.html", "result.json", "executed.ipynb", "config.toml", "data"}
    for name in ("result.json", "executed.ipynb", "report.html"):
        assert str(tmp_path) not in (folder / name).read_text() and str(ROOT) not in (folder / name).read_text()


def test_readme_builder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("build_readme", ROOT / "tools" / "build_readme.py")
    assert spec and spec.loader
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    out = nbformat.v4.new_output("execute_result", data={"text/plain": "42"})
    nb = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_markdown_cell("# pil\n\n> one line"), nbformat.v4.new_code_cell("#| hide\nsecret = 1"),
        nbformat.v4.new_code_cell("#| eval: true\nanswer = 42\nanswer", outputs=[out])])
    source, target = tmp_path / "index.ipynb", tmp_path / "README.md"
    nbformat.write(nb, source)
    argv = ["--source", str(source), "--target", str(target)]
    assert build.main([*argv, "--check"]) == 1  # nothing written yet
    assert build.main(argv) == 0 and build.main([*argv, "--check"]) == 0
    text = target.read_text()
    assert "secret" not in text and "#|" not in text and "answer = 42" in text and "    42" in text and "```python" in text
    target.write_text(text + "drift")
    assert build.main([*argv, "--check"]) == 1


def test_replay_of_an_older_store_within_last_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its ERC took another way to the same optimum."""
    (tmp_path / "s").mkdir(mode=0o700)
    store = shutil.copy(Path(__file__).parent / "golden" / "store_v1.sqlite", tmp_path / "s" / "store.sqlite")
    assert cli.main(["replay", str(store), "--tolerance", "1e-12"]) == 0
    assert "all as stored, within 1e-12" in capsys.readouterr().out


def test_replay_of_a_damaged_file_is_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.sqlite").write_text("no database " * 1000)
    assert cli.main(["replay", str(tmp_path / "s.sqlite")]) == 2
    shown = capsys.readouterr()
    assert not shown.out and [x[:5] for x in shown.err.splitlines()] == ["pil: ", "fix: "]


def test_other_spellings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    passing_runs(tmp_path)
    assert cli.main(["index", str(tmp_path)]) == cli.main(["index", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    books = []
    for asof in ("2017-06-30", "2017-06-30T15:30-04:00", "2017-07-01T01:00+02:00"):  # one day in New York
        assert cli.main(["book", "--data", "synthetic", "--asof", asof, "--json"]) == 0
        books.append(capsys.readouterr().out)
    assert json.loads(books[0])["session"][:10] == "2017-06-30" and books[1] == books[2] == books[0]
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0 and re.fullmatch(r"pil_research \d+\.\d+\.\d+", capsys.readouterr().out.strip())


def test_replay_names_a_missing_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["replay", str(tmp_path / "absent.db")]) == 2
    assert "absent.db" in capsys.readouterr().err
