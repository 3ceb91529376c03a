"""`pil new`: the folder is complete, honest about its data, and every command of its README runs in it."""
from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pil_research.cli import main
from pil_research.commands.new import config_text, profile_text, write_project
from pil_research.config import PILConfig, config_table
from pil_research.live import replay
from pil_research.research.data import check_panel, load_panel
from pil_research.research.templates import TEMPLATES, check_parameters, load_profile
from pil_research.types import InputError

ROOT = Path(__file__).resolve().parents[1]
TINY = (3, 6, 400)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("new") / "mine", sizes=TINY)


def told(project: Path, command: str) -> subprocess.CompletedProcess[str]:
    """A line of the README, run in the project by this interpreter."""
    words = command.split()
    program = [sys.executable, "-m", "pil_research"] if words[0] == "pil" else [sys.executable]
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([*program, *words[1:]], cwd=project, env=env, capture_output=True, text=True, timeout=300)


def commands(project: Path) -> list[str]:
    (block,) = re.findall(r"```sh\n(.*?)```", (project / "README.md").read_text(), re.S)
    return [str(x) for x in block.splitlines()]


def test_every_key_stands_in_the_configuration_with_its_range() -> None:
    text = config_text()
    assert all(f"\n{key.partition('.')[2]} = " in text and str(row["legal"]) in text for key, row in config_table().iterrows())
    assert len([x for x in text.splitlines() if x.startswith("[")]) == len(PILConfig().to_dict())


def test_configuration_and_panel_are_clean_and_say_what_they_are(project: Path) -> None:
    assert PILConfig.load(project / "pil.toml") == PILConfig()
    assert check_panel(project / "panel") == []
    panel = load_panel(project / "panel")
    assert (len(panel.sleeve_ids), len(panel.symbols), len(panel.dates)) == TINY and "not evidence" in panel.source
    assert "invented" in (project / "panel" / "panel.toml").read_text().splitlines()[0]
    assert "**The market in `panel/` is invented**" in (project / "README.md").read_text()


def test_the_profile_serves_every_report(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    for report in TEMPLATES:
        given = load_profile(report, "profile.yaml")
        assert given["data"] == "panel" and given["config"] == "pil.toml"
        check_parameters(report, given)
    assert profile_text() == (project / "profile.yaml").read_text()


@pytest.mark.parametrize(("body", "code"), [
    ("ladder: 3\n", "LOOSE_YAML"), ("laddr:\n  draws: 1\n", "LOOSE_YAML"), ("- ladder\n", "LOOSE_YAML"),
    ("ladder: {a: yes}\n", "LOOSE_YAML"), (None, "UNKNOWN_PROFILE")])
def test_a_bad_profile_file_is_refused(tmp_path: Path, body: str | None, code: str) -> None:
    file = tmp_path / "mine.yaml"
    if body is not None:
        file.write_text(body)
    with pytest.raises(InputError) as e:
        load_profile("ladder", str(file))
    assert e.value.code == code


def test_a_folder_that_holds_something_is_refused_and_untouched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note").write_text("mine")
    assert main(["new", str(tmp_path)]) == 2
    assert "FOLDER_NOT_EMPTY" in capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["note"]
    assert main(["new", str(tmp_path / "note")]) == 2 and main(["new", str(tmp_path / "x"), "--sizes", "3,6"]) == 2
    assert not (tmp_path / "x").exists()


def test_the_loop_is_that_of_the_example(project: Path) -> None:
    def loop(file: Path) -> str:
        (function,) = (n for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef) and n.name == "daemon")
        return "\n".join(ast.unparse(n) for n in function.body[1:] if "from_approval" not in ast.unparse(n))
    assert loop(project / "daemon.py") == loop(ROOT / "examples" / "daemon.py")


def test_the_quick_commands_of_the_readme_run(project: Path) -> None:
    lines = commands(project)
    assert len(lines) == 5 and [x.split()[:2] for x in lines][2] == ["pil", "report"]  # the one of the slow tier
    out = {x: told(project, x) for x in lines if not x.startswith("pil report")}
    assert not [d.stderr for d in out.values() if d.returncode]
    assert "valid, sha256:" in out[lines[0]].stdout and out[lines[1]].stdout.strip() == "0 errors, 0 warnings, 0 notes in panel"
    assert "sleeve" in out[lines[3]].stdout
    played = decisions(out[lines[4]])
    assert len(played) == 20 and {x["status"] for x in played} == {"ok"} and any(x["orders"] for x in played)
    assert replay(project / "desk" / "store.sqlite").ok


def decisions(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return [json.loads(x) for x in done.stdout.splitlines() if x.startswith("{")]


@pytest.mark.slow
def test_every_command_of_the_readme_runs_and_the_daemon_goes_on(tmp_path: Path) -> None:
    project = write_project(tmp_path / "mine", sizes=TINY)
    lines = commands(project)
    out = {}
    for line in lines:
        out[line] = told(project, line)
        assert out[line].returncode == 0, f"{line}\n{out[line].stdout}{out[line].stderr}"
    assert "1/N-risk" in out[lines[2]].stdout and "synthetic" in out[lines[2]].stdout
    assert len(list((project / "runs" / "ladder").glob("*/report.html"))) == 1 and (project / "runs" / "index.html").is_file()
    second = decisions(told(project, lines[4]))
    assert len(second) == 20 and str(second[0]["session"]) > str(decisions(out[lines[4]])[-1]["session"])
    done = replay(project / "desk" / "store.sqlite")
    assert done.ok and done.decisions == 40
    (project / "desk" / "KILL").touch()
    closed = decisions(told(project, lines[4]))
    assert {x["status"] for x in closed} == {"flat"} and not closed[-1]["gross"]
    assert {"runs/", "desk/"} <= set((project / ".gitignore").read_text().split())


@pytest.mark.slow
def test_a_new_project_is_long_enough_for_the_overfitting_report(tmp_path: Path) -> None:
    project = tmp_path / "mine"
    assert main(["new", str(project)]) == 0
    done = told(project, "pil report overfitting --profile profile.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((project / "runs" / "overfitting").glob("*/report.html"))) == 1
