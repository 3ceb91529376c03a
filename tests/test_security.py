"""Probes of every place where text, bytes or names come in: each is refused, or comes out as harmless text."""

# ruff: noqa: E501 (tables of probes)
from __future__ import annotations

import ast
import io
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from books import FAST, small_panel, snapshot
from fake_runs import fake_run

import pil_research
from pil_research.config import PILConfig
from pil_research.integrator import PortfolioIntegrator
from pil_research.live.kills import read_kills
from pil_research.live.payload import parse, unpack
from pil_research.live.store import StateStore
from pil_research.research import page
from pil_research.research.data import check_panel, load_panel
from pil_research.research.fuzz_faults import NAMES
from pil_research.research.index import build_index
from pil_research.research.runner import check_parameters, load_profile, parse_values, template_path
from pil_research.research.templates import check_yaml
from pil_research.types import (
    Alarm,
    ConfigError,
    InputError,
    InvariantError,
    PilError,
    Sleeve,
    StageRecord,
    StateError,
    check_name,
)

ROOT = Path(pil_research.__file__).parent
PROBES: list[str] = []  # every parametrized probe of this file, counted at its end


def probes(values: Any) -> Any:
    PROBES.extend(map(repr, values))
    return values


# ---------------------------------------------------------------- papermill names and values

INJECT = (
    "x=1;import os",
    "draws\nimport os",
    "draws #",
    "__import__('os')",
    "draws)",
    "draws: int",
    "DRAWS",
    "_draws",
    "1draws",
    "",
    " ",
    "draws ",
    "données",
    "draws=1",
    "kernel_name",
    "run-id",
    "a.b",
    "lambda",
    "import",
    "\x00",
    "draws\\",
    "${HOME}",
    "{{x}}",
)


@pytest.mark.parametrize("name", probes(INJECT))
def test_parameters_cannot_inject(name: str) -> None:
    with pytest.raises(InputError) as no:
        check_parameters("ladder", {name: 1})
    assert no.value.code == "UNKNOWN_PARAMETER" and no.value.field == name


VALUES = (
    ("draws", "500"),
    ("draws", True),
    ("draws", 5.0),
    ("draws", None),
    ("draws", [1]),
    ("data", 1),
    ("data", ["x"]),
    ("data", None),
    ("start", pd.Timestamp("2020-01-01")),
    ("seed", "1"),
)


@pytest.mark.parametrize(("name", "value"), probes(VALUES))
def test_parameters_have_one_type(name: str, value: Any) -> None:
    with pytest.raises(InputError) as no:
        check_parameters("ladder", {name: value})
    assert no.value.code == "BAD_PARAMETER"


@pytest.mark.parametrize(
    "text", probes(("yes", "on", "1e3", "0x10", "5.0", "", "None", "True", "1;2", "__import__('os')"))
)
def test_command_line_values_are_plain(text: str) -> None:
    with pytest.raises(InputError) as no:
        parse_values("ladder", {"draws": text})
    assert no.value.code == "BAD_PARAMETER"


# ---------------------------------------------------------------- YAML, TOML, JSON

YAML = (
    "a: on",
    "a: yes",
    "a: No",
    "a: off",
    "a: True",
    "a: y\na: n",
    "a: 1\na: 2",
    "a: 012",
    "a: 0o14",
    "a: 0x1f",
    "a: 1e3",
    "a: 1_000",
    "a: 190:20:30",
    "a: .5",
    "a: .inf",
    "a: .nan",
    "a: 2020-01-01",
    "a: !!python/object/apply:os.system ['true']",
    "a: !x 1",
    "a: &b [1]\nc: *b",
    "a: !!binary aGk=",
    "? [1]\n: 2",
    "a: [",
    "a:\n\t- 1",
    "<<: {a: 1}",
)


@pytest.mark.parametrize("text", probes(YAML))
def test_loose_text_is_refused(text: str) -> None:
    with pytest.raises(InputError) as no:
        check_yaml(text, "p.yaml")
    assert no.value.code == "LOOSE_YAML"


def test_plain_yaml_passes() -> None:
    check_yaml("ladder:\n  draws: 500\n  data: default\n  x: -0.5\n  y: true\n  z: '012'\n  l: [1, 2]\n", "p.yaml")
    for profile in ("smoke", "full"):
        assert load_profile("ladder", profile) is not None


TOML = (
    "on = yes",
    "[caps]\nname = on",
    "[caps]\nname = 012",
    "[caps]\nname = 0.1\nname = 0.1",
    "[caps]\n[caps]",
    "[caps]\nname = inf",
    "[caps]\nname = nan",
    "[caps]\nname = '1e-1'",
    "[caps]\nname = [0.1]",
    "[caps]\nname = true",
    "[caps]\nname = 1979-05-27",
    "[caps]\nenabled = 'true'",
    "[caps]\n'name; DROP' = 1",
    "caps.name.x = 1",
    "[allocation]\nmethod = '__import__'",
    "[schedule]\nslots = '15:30'",
    "\x00",
    "[caps]\nname = 1e999",
)


@pytest.mark.parametrize("text", probes(TOML))
def test_loose_configurations_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError):
        PILConfig.load(tmp_path / "c.toml")


JSON = (
    '{"a":1,"a":2}',
    '{"a":{"b":1,"b":1}}',
    "NaN",
    "[Infinity]",
    "[-Infinity]",
    "1e999",
    "[-1e999]",
    '{"a":1e400}',
    "{'a':1}",
    "[1,]",
    "// x\n1",
    "01",
    "0x1",
    "+1",
    ".5",
    "1.",
    "[1",
    "",
    " ",
    "nul",
    "True",
    '"\\x41"',
    "[" * 100_000,
    '{"a":1}{"b":2}',
    "\ufeff1",
    b"\xff\xfe",
    b"\x80\x04K\x01.",
    '"\t"',
)


@pytest.mark.parametrize("text", probes(JSON), ids=lambda x: repr(x)[:20])
def test_json_is_strict(text: str | bytes) -> None:
    with pytest.raises(StateError) as no:
        parse(text)
    assert no.value.code == "BAD_PAYLOAD"


# ---------------------------------------------------------------- objects

OS_SYSTEM = b"cos\nsystem\n(S'touch /tmp/pil-owned'\ntR."


def objects() -> dict[str, bytes]:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object))
    plain = io.BytesIO()
    np.save(plain, np.arange(3.0))
    return {
        "pickle": OS_SYSTEM,
        "pickle 4": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00K\x01.",
        "npy of objects": out.getvalue(),
        "npy": plain.getvalue(),
        "zip": b"PK\x03\x04" + bytes(40),
        "marshal": b"\xe3\x00\x00",
        "object kind": b'{"kind":"|O","shape":[1],"z":false}\n' + bytes(8),
        "negative shape": b'{"kind":"<f8","shape":[-1],"z":false}\n' + bytes(8),
        "wrong length": b'{"kind":"<f8","shape":[2],"z":false}\n' + bytes(8),
        "void kind": b'{"kind":"|V8","shape":[1],"z":false}\n' + bytes(8),
        "bomb header": b'{"kind":"<f8","shape":[99999999999999],"z":false}\n',
    }


@pytest.mark.parametrize("name", probes(tuple(objects())))
def test_archived_bytes_are_never_objects(tmp_path: Path, name: str) -> None:
    data = objects()[name]
    with pytest.raises(StateError):
        unpack(data)
    path = tmp_path / "s" / "book.db"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(data)
    with pytest.raises(StateError) as no:
        StateStore(path)
    assert no.value.code == "CORRUPT" and not Path("/tmp/pil-owned").exists()


BANNED = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "read_pickle",
    "to_pickle",
    "system",
    "popen",
    "mktemp",
    "full_load",
    "unsafe_load",
    "load_all",
    "loads_pickle",
    "getstatusoutput",
}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "telnetlib", "ftplib", "xmlrpc", "pty"}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(n.func), n) for n in ast.walk(tree) if isinstance(n, ast.Call)]


@pytest.mark.parametrize("path", sorted(p for p in ROOT.rglob("*.py") if p.name != "_modidx.py"), ids=lambda p: p.stem)
def test_the_package_unpickles_and_evaluates_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = (
                {a.name.split(".")[0] for a in node.names}
                if isinstance(node, ast.Import)
                else {(node.module or "").split(".")[0]}
            )
            assert not names & MODULES
    for name, call in calls(tree):
        last = name.split(".")[-1]
        assert last not in BANNED or name in ("re.compile",), f"line {call.lineno}: {name}"
        assert name not in ("yaml.load", "np.load", "numpy.load", "joblib.load", "joblib.dump"), (
            f"line {call.lineno}: {name}"
        )
        for k in call.keywords:
            on = isinstance(k.value, ast.Constant) and k.value.value is True
            assert not (k.arg in ("shell", "allow_pickle") and on), f"line {call.lineno}: {k.arg}"


# ---------------------------------------------------------------- markup

HTML = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "'><b onclick=alert(1)>x",
    "<a href='javascript:alert(1)'>x</a>",
    "<iframe src=//x.org>",
    "</table><h1>x</h1>",
    "<!--",
    "]]><script>",
    "<style>*{display:none}</style>",
    "&lt;script&gt;<i>",
    "<ScRiPt >x</ScRiPt >",
    "<math><mi//xlink:href='data:x'>",
    "\u003cscript\u003e",
    "<meta http-equiv=refresh content=0>",
    "<form action=//x.org><input>",
    "<object data=x>",
    "${alert(1)}<b>",
    "{{7*7}}<b>",
    "<details open ontoggle=alert(1)>",
)
TAG = re.compile(
    r"<\s*/?\s*(script|img|svg|b|a|iframe|h1|style|math|meta|form|input|object|details|i)\b[^>]*(alert|x\.org|display:none|xlink|refresh|data=x)?",
    re.I,
)


def harmless(made: str, payload: str) -> None:
    """The payload is not in the page as it was given; its signs are escaped."""
    assert payload not in made or not re.search(r"[<>\"']", payload), payload


@pytest.mark.parametrize("payload", probes(HTML))
def test_text_comes_out_as_text(payload: str) -> None:
    frame = pd.DataFrame({"x": [1.0], "t": [payload]}, index=[payload])
    facts = {
        "name": payload,
        "source": payload,
        "start": payload,
        "end": payload,
        "calendar": payload,
        "notes": (payload,),
    }
    for made in (
        page.text(payload),
        page.number(payload, "text"),
        page.table_html(frame, {"x": (payload, ".1f"), "t": ("t", "text")}, caption=payload, corner=payload),
        page.facts_html({payload: payload}),
        page.section_html(payload, "<p>ok</p>"),
        page.data_section_html(facts, {"own": payload}, {"run": payload, payload: payload}),
        page.verdict_html("PASS", payload, payload, payload),
    ):
        harmless(made, payload)
    try:
        harmless(page.page_html(payload, "<p>ok</p>", subtitle=payload), payload)
    except InvariantError as e:  # escaped, but it still looks like a source that loads: refused
        assert e.code == "BAD_PAGE" and "src=" in payload


@pytest.mark.parametrize("payload", probes(HTML))
def test_names_in_markup_are_refused_at_the_border(payload: str) -> None:
    with pytest.raises(InputError):
        check_name(payload, "symbol")
    with pytest.raises(InputError):
        Sleeve(id=payload, weights=None)
    made = snapshot(small_panel(21, t=120), 110)
    bad = made.asset_returns.rename(columns={"S01": payload})
    with pytest.raises(InputError) as no:
        PortfolioIntegrator(FAST).build_target_book(replace(made, asset_returns=bad))
    assert no.value.code == "BAD_NAME"


def test_free_text_in_values_that_draw_themselves() -> None:
    """Decision, explanation and verdict in a notebook: whatever text got in is escaped."""
    made = snapshot(small_panel(21, t=160), 150)
    d = PortfolioIntegrator(FAST).build_target_book(made)
    for payload in HTML:
        alarm = Alarm(code="KILL_SET", severity="critical", subject=payload, message=payload)  # type: ignore[arg-type]
        record = StageRecord(
            name=payload, gross=1.0, net=0.0, ex_ante_vol=0.1, n_names=1, multiplier=1.0, bound=(payload,)
        )
        harmless(
            replace(
                d,
                alarms=(alarm,),
                stages=(record,),
                slot=payload,
                passport=None,
                book_weights=d.book_weights,
                exposures=d.exposures,
                notionals=d.notionals,
                trades=d.trades,
                sleeve_weights=d.sleeve_weights,
                orders=d.orders,
                binding=d.binding,
                haircuts=d.haircuts,
                numbers=d.numbers,
            )._repr_html_(),
            payload,
        )
        told = d.explain("S01")
        harmless(replace(told, name=payload, sleeves=pd.Series({payload: 0.1}))._repr_html_(), payload)


def test_free_text_in_the_index(tmp_path: Path) -> None:
    payloads = [h for h in HTML if "src=//" not in h][:6]
    for n, payload in enumerate(payloads, 1):
        fake_run(tmp_path, "ladder", n=n, source=payload, params={"data": payload})
    made = build_index(tmp_path).read_text(encoding="utf-8")
    for payload in payloads:
        harmless(made, payload)
    assert "<script" not in made


@pytest.mark.parametrize("name", probes(NAMES), ids=lambda x: repr(x)[:20])
def test_only_plain_names_are_names(name: str) -> None:
    if name in ("nan", "None"):  # words, but plain ones
        assert check_name(name, "symbol") == name
        return
    with pytest.raises(InputError) as no:
        check_name(name, "symbol")
    assert no.value.code == "BAD_NAME" and len(no.value.subject) <= 40


# ---------------------------------------------------------------- paths and files

PATHS = (
    "../x",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "..",
    ".",
    "~",
    "C:\\x",
    "a\x00b",
    "x\n",
    "%2e%2e/",
    "file:///etc/passwd",
    "-rf",
    "*",
)


@pytest.mark.parametrize("name", probes(PATHS))
def test_no_name_leaves_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as no:
        template_path(name)
    assert no.value.code == "UNKNOWN_REPORT"
    with pytest.raises(InputError):
        load_profile("ladder", name)
    if name not in ("..", ".", "-rf"):
        with pytest.raises(InputError):
            check_name(name, "sleeve id")
    with pytest.raises(PilError):
        StateStore(tmp_path / "none" / name.replace("\x00", "") / "book.db", readonly=True)


def test_dots_as_names_never_become_paths(tmp_path: Path) -> None:
    """`..` is made of allowed signs; a panel folder named by it reads nothing outside."""
    (tmp_path / "secret.csv").write_text("date,A\n2020-01-01,1\n")
    panel = tmp_path / "panel"
    (panel / "sleeves").mkdir(parents=True)
    (panel / "panel.toml").write_text('name = "x"\nsource = "x"\n')
    (panel / "sleeves.toml").write_text('["../../secret"]\nrole = "neutral"\n')
    assert any(d.severity == "error" for d in check_panel(panel))
    with pytest.raises(PilError):
        load_panel(panel)


@pytest.mark.parametrize("part", probes(("", ".lock", ".head")))
def test_a_symbolic_link_is_no_store(tmp_path: Path, part: str) -> None:
    path = tmp_path / "s" / "book.db"
    StateStore(path).close()
    victim = tmp_path / "victim"
    shutil.move(path.with_name(path.name + part), victim) if path.with_name(
        path.name + part
    ).exists() else victim.write_text("keep")
    before = victim.read_bytes()
    path.with_name(path.name + part).symlink_to(victim)
    try:
        StateStore(path).close()
    except StateError as e:
        assert e.code in ("BAD_FILE", "CORRUPT", "MISSING", "ROLLED_BACK")
    else:
        assert part == ".head"
    assert victim.read_bytes() == before


@pytest.mark.parametrize("mode", probes((0o777, 0o770, 0o722, 0o702)))
def test_a_folder_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(StateError) as no:
        StateStore(folder / "book.db")
    assert no.value.code == "UNSAFE_DIR" and not (folder / "book.db").exists()


def test_modes_whatever_the_mask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with StateStore(tmp_path / "s" / "book.db") as store:
            store.export()
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
            for f in (tmp_path / "s").iterdir():
                assert stat.S_IMODE(f.stat().st_mode) == 0o600, f.name
    finally:
        os.umask(old)


KILLS = ("link", "folder", "fifo", "large", "html", "pickle", "twice", "unknown key", "names of markup", "number")


@pytest.mark.parametrize("how", probes(KILLS))
def test_a_kill_file_that_cannot_be_read_kills(tmp_path: Path, how: str) -> None:
    path = tmp_path / "KILL"
    text = {
        "large": " " * 70_000,
        "html": "<b>",
        "twice": '{"book":false,"book":false}',
        "unknown key": '{"bok":false}',
        "names of markup": '{"symbols":["<b>"]}',
        "number": "0",
    }
    if how == "link":
        path.symlink_to(tmp_path / "nothing")
    elif how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(OS_SYSTEM if how == "pickle" else text[how].encode())
    got = read_kills(path)
    assert got is not None and got.book


# ---------------------------------------------------------------- without asserts

CORE = r"""
import sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
import numpy as np, pandas as pd
from books import CAPPED, FAST, small_panel, snapshot
from pil_research.integrator import PortfolioIntegrator
from pil_research.live.checks import Duties, check_last_line
from pil_research.types import InvariantError, Kills, PilError
if __debug__: raise SystemExit("asserts are on")
panel = small_panel(21)
made, n = snapshot(panel, 150), 0
def refused(call, *codes):
    global n
    try: call()
    except PilError as e:
        if e.code not in codes: raise SystemExit(f"{e.code} instead of {codes}")
        n += 1
    else: raise SystemExit(f"not refused: {codes}")
ask = lambda s: PortfolioIntegrator(FAST).build_target_book(s)
for change, code in (({"flows": float("nan")}, "NON_FINITE"), ({"equity": float("inf")}, "NON_FINITE"), ({"slot": "noon"}, "BAD_SLOT"),
                     ({"asset_returns": made.asset_returns.iloc[::-1]}, "UNSORTED_INDEX"), ({"sleeves": (made.sleeves[0],) * 2}, "DUPLICATE_SLEEVE"),
                     ({"asset_returns": made.asset_returns.tz_localize("UTC")}, "BAD_INDEX"), ({"positions": pd.Series({"S00": np.nan})}, "NON_FINITE")):
    refused(lambda: ask(replace(made, **change)), code)
d = PortfolioIntegrator(CAPPED).build_target_book(made)
for spoil in (d.exposures * 9.0, d.exposures * np.nan, d.exposures.where(d.exposures.index != "S01", np.inf)):
    refused(lambda: check_last_line(replace(d, exposures=spoil, trades=spoil, passport=None, **{k: getattr(d, k) for k in (
        "book_weights", "notionals", "sleeve_weights", "orders", "stages", "alarms", "binding", "haircuts", "numbers")}), CAPPED, Duties()), "LAST_LINE")
refused(lambda: FAST.replace(**{"caps.name": 10.0}), "CONFIG_RANGE")
flat = PortfolioIntegrator(FAST).build_target_book(replace(made, kills=Kills(book=True)))
if (flat.exposures != 0.0).any(): raise SystemExit("kill ignored")
print(n)
"""


def test_core_faults_without_asserts() -> None:
    """python -O takes every assert away; the refusals and the last line must stay."""
    done = subprocess.run(
        [sys.executable, "-O", "-c", CORE, str(Path(__file__).parent)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.strip() == "11", done.stdout + done.stderr


def test_no_assert_in_the_package() -> None:
    for path in ROOT.rglob("*.py"):
        if path.name != "_modidx.py":
            assert not [
                n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Assert)
            ], path


def test_there_are_enough_probes() -> None:
    assert len(PROBES) >= 200, len(PROBES)
