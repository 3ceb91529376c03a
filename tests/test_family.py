"""The configuration family: the shipped file, the grid, names, and slips of the pen."""
from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.config import PILConfig
from pil_research.estimate import EstimateSettings
from pil_research.research import family as f
from pil_research.types import ConfigError

METHODS = ("hrp", "erc", "min_variance", "inverse_vol", "equal")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_family_is_large_and_holds_the_base_and_the_fallback() -> None:
    full, smoke = f.load_family(), f.load_family(profile="smoke")
    assert len(full) >= 300 and 20 <= len(smoke) <= 60
    prints = {n: c.fingerprint() for n, c in full.items()}
    assert len(set(prints.values())) == len(prints)
    assert next(iter(full.values())) == PILConfig() == next(iter(smoke.values()))
    assert {n: c.fingerprint() for n, c in smoke.items()}.items() <= prints.items()
    one_n_risk = PILConfig().replace(**{"allocation.method": "equal", "tilt.bound": 0.0})
    assert one_n_risk.fingerprint() in prints.values()
    assert {c.allocation.method for c in full.values()} == set(METHODS)


def test_the_shipped_family_walks_as_one_group() -> None:
    full = f.load_family()
    keys = {repr((EstimateSettings.of(c), c.vol_target.enabled)) for c in full.values()}
    assert len(keys) == 1
    tracks = f.family_tracks(full)
    assert len(tracks) == 2 * len(full) == len({t.name for t in tracks}) and {t.lag for t in tracks} == {0, 1}


def test_the_size_is_what_the_axes_say() -> None:
    axes = f.read_axes(tomllib.loads(f.default_family().read_text(encoding="utf-8")))
    n = {a: len(v) for a, v in axes.items()}
    rest = n["vol_target"] * n["tilt"]
    assert len(f.load_family()) == rest * (4 * n["lookback"] * n["target"] + n["lookback"] + 1)


def test_names_are_readable() -> None:
    assert next(iter(f.load_family())) == "hrp·252·cc·10%·κ.25·direct"
    names = set(f.load_family())
    assert {"erc·126·id·8%·κ0", "inverse_vol·504·12%·κ.5", "equal·10%·κ0", "hrp·504·raw·12%·κ.5·paper"} <= names
    assert f.member_name(PILConfig().replace(**{"covariance.window": 0})) == "hrp·expanding·cc·10%·κ.25·direct"


def test_window_and_half_life_move_together() -> None:
    for config in f.load_family().values():
        assert config.covariance.half_life == config.covariance.window / 4.0
    base = PILConfig().replace(**{"covariance.window": 200, "covariance.half_life": 20.0})
    assert f.changes_of({"lookback": 400}, base) == {"covariance.window": 400, "covariance.half_life": 40.0}
    expanding = PILConfig().replace(**{"covariance.window": 0})
    assert f.changes_of({"lookback": 252}, expanding)["covariance.half_life"] == 63.0
    assert f.changes_of({"lookback": 0}, base) == {"covariance.window": 0, "covariance.half_life": 20.0}


def test_axes_that_a_method_does_not_read_do_not_multiply() -> None:
    got = f.family_of({"method": list(METHODS), "variant": ["direct", "paper"], "lookback": [126, 252],
                       "target": ["constant_correlation", "none"]})
    count = {m: sum(c.allocation.method == m for c in got.values()) for m in METHODS}
    assert count == {"hrp": 8, "erc": 4, "min_variance": 4, "inverse_vol": 2, "equal": 1}


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(METHODS), min_size=1, max_size=3, unique=True),
       st.lists(st.sampled_from([63, 126, 252, 504]), min_size=1, max_size=2),
       st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5]), min_size=1, max_size=2),
       st.lists(st.sampled_from([0.05, 0.1, 0.15]), min_size=1, max_size=2))
def test_members_are_distinct_and_differ_from_the_base_on_axes_only(methods, lookbacks, tilts, targets) -> None:
    base = PILConfig().replace(**{"allocation.smoothing": 0.7})
    got = f.family_of({"method": methods, "lookback": lookbacks, "tilt": tilts, "vol_target": targets}, base)
    prints = [c.fingerprint() for c in got.values()]
    assert len(set(prints)) == len(prints) and next(iter(got.values())) == base
    for c in got.values():
        back = c.replace(**{"allocation.method": "hrp", "covariance.window": 252, "covariance.half_life": 63.0,
                            "tilt.bound": 0.25, "vol_target.target": 0.10})
        assert back == base


def test_equal_configurations_count_once() -> None:
    got = f.family_of({"method": ["hrp", "hrp", "erc"], "tilt": [0.25, 0.25]})
    assert list(got) == ["hrp·252·cc·10%·κ.25·direct", "erc·252·cc·10%·κ.25"]


def test_the_base_is_a_member_even_off_the_grid() -> None:
    base = PILConfig().replace(**{"covariance.window": 300, "covariance.half_life": 75.0})
    got = f.family_of({"method": ["hrp", "erc"], "lookback": [126, 252]}, base)
    assert next(iter(got)) == "hrp·300·cc·10%·κ.25·direct" and len(got) == 5


def test_any_other_key_can_be_an_axis() -> None:
    got = f.family_of({"method": ["hrp"], "allocation.smoothing": [0.7, 0.8, 0.9]})
    assert set(got) == {f"hrp·252·cc·10%·κ.25·direct·smoothing={s}" for s in (0.7, 0.8, 0.9)}
    assert sorted(c.allocation.smoothing for c in got.values()) == [0.7, 0.8, 0.9]


@pytest.mark.parametrize(("text", "code", "match"), [
    ("[axes]\nlookbak = [126]\n", "FAMILY_UNKNOWN_AXIS", "nearest known axis: 'lookback'"),
    ('[axes]\n"allocation.smothing" = [0.8]\n', "CONFIG_UNKNOWN_KEY", "nearest known key: 'smoothing'"),
    ('[axes]\n"allocaton.smoothing" = [0.8]\n', "CONFIG_UNKNOWN_KEY", "'allocation'"),
    ('[axes]\n"tilt.bound" = [0.1]\n', "FAMILY_UNKNOWN_AXIS", "write 'tilt'"),
    ('[axes]\n"covariance.half_life" = [20.0]\n', "FAMILY_UNKNOWN_AXIS", "write 'lookback'"),
    ('[axes]\nmethod = "hrp"\n', "FAMILY_TYPE", "must be a list"),
    ("[axes]\nmethod = []\n", "FAMILY_TYPE", "at least one value"),
    ('[axes]\nmethod = ["hpr"]\n', "FAMILY_ILLEGAL", "did you mean 'hrp'"),
    ("[axes]\nvol_target = [10]\n", "FAMILY_ILLEGAL", "written 0.10, not 10"),
    ('[axes]\nlookback = ["long"]\n', "FAMILY_ILLEGAL", "not a legal configuration"),
    ("[axes]\nlookback = [30]\n", "FAMILY_ILLEGAL", "min_overlap"),
    ("[axes]\nvol_target = [nan]\n", "FAMILY_ILLEGAL", "finite"),
    ("[axis]\nmethod = ['hrp']\n", "FAMILY_UNKNOWN_TABLE", "nearest known table: 'axes'"),
    ("axes = 3\n", "FAMILY_TYPE", "must be a table"),
    ("", "FAMILY_EMPTY", "needs a table"),
    ("[axes\n", "FAMILY_TOML", "not valid TOML"),
    ("[axes]\ntilt = [0.25]\n[smoke]\ntilt = [0.3]\n", "FAMILY_NOT_SUBSET", "subset"),
    ("[axes]\ntilt = [0.25]\n[smoke]\nmethod = ['hrp']\n", "FAMILY_NOT_SUBSET", "subset"),
    ("[axes]\nvol_target = [0.1, 0.10000001]\n", "FAMILY_NAMES", "six digits"),
])
def test_slips_are_named(tmp_path: Path, text: str, code: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as err:
        f.load_family(write(tmp_path, text))
    assert err.value.code == code


def test_file_and_profile_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as err:
        f.load_family(tmp_path / "none.toml")
    assert err.value.code == "FAMILY_FILE" and str(tmp_path) not in str(err.value)
    with pytest.raises(ConfigError, match="'full' or 'smoke'"):
        f.load_family(profile="fast")


def test_smoke_without_a_table_is_the_whole_family(tmp_path: Path) -> None:
    path = write(tmp_path, "[axes]\ntilt = [0.0, 0.25]\n")
    assert f.load_family(path, "smoke") == f.load_family(path, "full")


def test_table_shows_what_is_read() -> None:
    got = f.family_of({"method": ["hrp", "equal", "inverse_vol"], "lookback": [126]})
    table = f.family_table(got)
    assert list(table.columns) == ["method", "lookback", "target", "vol_target", "tilt", "variant", "half_life"]
    assert table.loc["equal·10%·κ.25", ["lookback", "target", "variant", "half_life"]].isna().all()
    assert table.loc["inverse_vol·126·10%·κ.25", "half_life"] == 31.5
    assert table.loc["hrp·126·cc·10%·κ.25·direct", "variant"] == "direct"
