"""Shell completion: the bash script, run by bash, knows every command and option of the parser."""
from __future__ import annotations

import argparse
import shutil
import subprocess

import pytest

from pil_research.cli import build_parser
from pil_research.commands.completion import SHELLS, bash_script, fish_script, typed_words, zsh_script
from pil_research.research.templates import TEMPLATES

WORDS = typed_words(build_parser())
BASH = shutil.which("bash") or ""
needs_bash = pytest.mark.skipif(not BASH, reason="bash is not installed")


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
    assert set(completed("pil", "")) == {*WORDS[""].values, "--help", "--debug"}
    assert completed("pil", "--debug", "com") == ["completion"]


@needs_bash
@pytest.mark.parametrize("command", [c for c in WORDS if c])
def test_every_option_is_completed(command: str) -> None:
    assert set(completed("pil", command, "--")) == set(WORDS[command].options)


@needs_bash
def test_values_are_completed() -> None:
    assert completed("pil", "config", "") == ["show", "check", "--help"]
    assert completed("pil", "report", "se") == ["sensitivity"]
    assert completed("pil", "completion", "z") == ["zsh"]
    assert completed("pil", "report", "ladder", "--config", "") == []  # bash goes on with file names
    assert completed("pil", "report", "ladder", "--g") == ["--gate"]


def test_the_words_are_the_parsers() -> None:
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(WORDS) == {"", *commands.choices}
    for name, parser in commands.choices.items():
        given = {o for a in parser._actions if a.help != argparse.SUPPRESS for o in a.option_strings if o.startswith("--")}
        assert set(WORDS[name].options) == given
    assert WORDS["report"].values == tuple(TEMPLATES)


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
