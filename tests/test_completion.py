"""Shell completion: each script, run by its own shell, knows the commands, options and values of the parser."""
from __future__ import annotations

import argparse
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pil_research.cli import build_parser
from pil_research.commands.completion import SHELLS, bash_script, fish_script, typed_words, zsh_script
from pil_research.research.templates import TEMPLATES

WORDS = typed_words(build_parser())
BASH = shutil.which("bash") or ""
needs_bash = pytest.mark.skipif(not BASH, reason="bash is not installed")
ZSH, FISH = shutil.which("zsh") or "", shutil.which("fish") or ""
needs_zsh = pytest.mark.skipif(not ZSH, reason="zsh is not installed")
needs_fish = pytest.mark.skipif(not FISH, reason="fish is not installed")


def completed(*line: str) -> list[str]:
    """What bash offers when the cursor is at the end of the last word."""
    words = " ".join(f"'{w}'" for w in line)
    script = (f"{bash_script(WORDS)}\nCOMP_WORDS=({words})\nCOMP_CWORD={len(line) - 1}\n_pil\n"
              "printf '%s\\n' \"${COMPREPLY[@]}\"\n")
    done = subprocess.run([BASH, "--norc", "-u"], input=script, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


@needs_bash
def test_commands_are_completed() -> None:
    assert completed("pil", "comp") == ["completion"] and completed("pil", "re") == ["report", "replay"]
    assert set(completed("pil", "")) == {*WORDS[""].values, "--help", "--debug", "--version"}
    assert completed("pil", "--debug", "com") == ["completion"]


@needs_bash
@pytest.mark.parametrize("command", [c for c in WORDS if c])
def test_every_option_is_completed(command: str) -> None:
    assert set(completed("pil", command, "--")) == set(WORDS[command].options)


@needs_bash
def test_values_are_completed() -> None:
    assert completed("pil", "config", "") == ["show", "check", "--help", "--resolved"]
    assert completed("pil", "report", "se") == ["sensitivity"]
    assert completed("pil", "completion", "z") == ["zsh"]
    assert completed("pil", "report", "ladder", "--config", "") == []  # bash goes on with file names
    assert completed("pil", "report", "ladder", "--g") == ["--gate"]
    assert completed("pil", "validate", "--profile", "") == ["full", "smoke"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the two scripts and one file to complete."""
    (tmp_path / "pil.zsh").write_text(zsh_script(WORDS))
    (tmp_path / "pil.fish").write_text(fish_script(WORDS))
    (tmp_path / "mine.toml").touch()
    return tmp_path


def fished(place: Path, line: str) -> set[str]:
    """What fish offers at the end of a line."""
    env = os.environ | {"HOME": str(place), "XDG_CONFIG_HOME": str(place / "c"), "XDG_DATA_HOME": str(place / "d")}
    done = subprocess.run([FISH, "--no-config", "-c", f"source pil.fish; complete -C '{line}'"], cwd=place, env=env,
                          capture_output=True, text=True, check=True)
    assert not done.stderr
    return {x.split("\t")[0] for x in done.stdout.splitlines()} - {"c/", "d/"}


@needs_fish
def test_fish_completes(place: Path) -> None:
    assert fished(place, "pil re") == fished(place, "pil --debug re") == {"report", "replay"}
    assert fished(place, "pil report ") == {*TEMPLATES, "all"} and fished(place, "pil report se") == {"sensitivity"}
    assert fished(place, "pil validate --pro") == {"--profile"}
    assert {"full", "smoke", "mine.toml"} <= fished(place, "pil validate --profile ")
    assert fished(place, "pil config ") == {"show", "check"} and fished(place, "pil config check mi") == {"mine.toml"}
    assert fished(place, "pil report ladder --config mi") == {"mine.toml"}


@needs_fish
@pytest.mark.parametrize("command", [c for c in WORDS if c])
def test_fish_completes_every_option(command: str, place: Path) -> None:
    assert fished(place, f"pil {command} --") == set(WORDS[command].options)


def zshed(place: Path, line: str, until: tuple[str, ...]) -> str:
    """What a terminal shows once zsh was asked, by two TABs, to complete a line; it waits for the words of `until`."""
    pty = pytest.importorskip("pty")
    terminal, inner = pty.openpty()
    env = os.environ | {"TERM": "dumb", "PS1": "> ", "HOME": str(place), "ZDOTDIR": str(place)}
    shell = subprocess.Popen([ZSH, "-f", "-i", "+m"], cwd=place, env=env, stdin=inner, stdout=inner, stderr=inner,
                             start_new_session=True)

    def shown(words: tuple[str, ...], seconds: float) -> str:
        text, end = "", time.monotonic() + seconds
        while time.monotonic() < end and not all(w in text for w in words):
            if select.select([terminal], [], [], 0.1)[0]:
                text += os.read(terminal, 65536).decode(errors="replace")
        return text
    try:
        os.write(terminal, b"autoload -Uz compinit; compinit -D -u; source pil.zsh; echo rea''dy\n")
        assert "ready" in shown(("ready",), 20.0)
        os.write(terminal, line.encode() + b"\t\t")
        return shown(until, 10.0)
    finally:
        shell.kill()
        shell.wait(10)
        os.close(terminal)
        os.close(inner)


@needs_zsh
@pytest.mark.parametrize(("line", "words"), [
    ("pil re", ("replay", "report")), ("pil --debug re", ("replay", "report")), ("pil report ", (*TEMPLATES, "all")),
    ("pil report se", ("sensitivity",)), ("pil validate --pro", ("validate --profile",)), ("pil config ", ("show", "check")),
    ("pil validate --profile ", ("full", "smoke", "mine.toml")), ("pil config check mi", ("mine.toml",)),
    ("pil report ladder --g", ("--gate",)), ("pil report ladder --config mi", ("mine.toml",))])
def test_zsh_completes(line: str, words: tuple[str, ...], place: Path) -> None:
    seen = zshed(place, line, words)
    assert all(w in seen for w in words), seen


def test_the_words_are_the_parsers() -> None:
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(WORDS) == {"", *commands.choices}
    for name, parser in commands.choices.items():
        given = {o for a in parser._actions if a.help != argparse.SUPPRESS for o in a.option_strings if o.startswith("--")}
        assert set(WORDS[name].options) == given
    assert WORDS["report"].values == (*TEMPLATES, "all")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_whole_and_a_shell_that_is_here_can_parse_it(shell: str) -> None:
    script = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[shell](WORDS)
    assert script.count("'") % 2 == 0 and "\\" not in script
    assert all(name in script for name in WORDS)
    program = shutil.which(shell)
    if program:
        subprocess.run([program, "-n"], input=script, text=True, check=True, capture_output=True)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    from pil_research.cli import main

    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == bash_script(WORDS)
