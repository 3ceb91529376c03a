"""A walk split over processes or a cluster is the walk of one process; a worker that dies costs only time."""
from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy.testing as npt
import pytest

from pil_research.config import PILConfig
from pil_research.research import scale_out as module
from pil_research.research.scale_out import _Walker, plan_chunks, scale_out
from pil_research.research.synthetic_panel import synthetic_panel
from pil_research.research.walk_forward import SESSION_TABLES, Track, WalkForward, run_tracks
from pil_research.types import InputError

PANEL = synthetic_panel(5, n_sleeves=3, n_symbols=8, n_days=420)
TRACKS = [Track(name=f"{m}-{h}-{g}", config=PILConfig().replace(**{"allocation.method": m, "sleeves.vol_half_life": h}), lag=g)
          for m in ("hrp", "erc", "equal") for h in (63, 21) for g in (0, 1)]


def same(a: WalkForward, b: WalkForward) -> None:
    assert a.names == b.names and a.dates.equals(b.dates)
    for name in SESSION_TABLES:
        npt.assert_allclose(getattr(a, name).to_numpy(), getattr(b, name).to_numpy(), rtol=0, atol=1e-12 * 5e6 if name == "equity"
                            else 1e-12, err_msg=name)
    for n in a.names:
        npt.assert_allclose(a.sleeve_weights[n], b.sleeve_weights[n], rtol=0, atol=1e-12)
    assert (a.binding == b.binding).all(axis=None) and (a.rungs[b.rungs.columns] == b.rungs).all(axis=None)
    npt.assert_array_equal(a.sleeve_returns, b.sleeve_returns)
    assert a.meta["config_fingerprints"] == b.meta["config_fingerprints"] and len(a.final_states) == len(b.final_states)


@pytest.fixture(scope="module")
def whole() -> WalkForward:
    return run_tracks(PANEL, TRACKS, keep_exposures=[TRACKS[3].name])


def test_chunks_hold_every_track_once_and_share_estimates() -> None:
    for parts in (1, 2, 3, 5, 12, 40):
        chunks = plan_chunks(TRACKS, parts)
        assert sorted(i for c in chunks for i in c) == list(range(len(TRACKS))) and all(chunks) and len(chunks) == min(parts, 12)
    halves = [{TRACKS[i].config.sleeves.vol_half_life for i in c} for c in plan_chunks(TRACKS, 2)]
    assert halves == [{63}, {21}]
    for bad in (0, -1):
        with pytest.raises(InputError, match="at least one part"):
            plan_chunks(TRACKS, bad)


@pytest.mark.parametrize("parts", [1, 2, 5, 12])
def test_any_split_gives_the_walk_of_one_process(parts: int, whole: WalkForward) -> None:
    split = scale_out(PANEL, TRACKS, engine="serial", parts=parts, keep_exposures=[TRACKS[3].name])
    same(split, whole)
    assert list(split.exposures) == list(whole.exposures) == [TRACKS[3].name]


def test_processes_of_this_machine(whole: WalkForward) -> None:
    same(scale_out(PANEL, TRACKS, engine="joblib", workers=2, parts=3), whole)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a real cluster of two worker processes."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


def test_a_real_cluster_of_several_workers(whole: WalkForward, scheduler: str) -> None:
    same(scale_out(PANEL, TRACKS, engine="dask", scheduler=scheduler, parts=5), whole)


def test_a_local_cluster_is_started_and_stopped() -> None:
    same(scale_out(PANEL, TRACKS[:2], engine="dask", workers=1), run_tracks(PANEL, TRACKS[:2]))


class Mortal(_Walker):
    """Kills its own process when asked for the chunk that holds track 0, `deaths` times in all."""

    graves: Path
    deaths = 1

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.graves, self.deaths = type(self).graves, type(self).deaths  # travel with the pickled object

    def __call__(self, chunk: Any) -> WalkForward:
        if 0 in chunk and len(list(self.graves.iterdir())) < self.deaths:
            (self.graves / f"{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(chunk)


@pytest.mark.parametrize("engine", ["joblib", "dask"])
def test_a_worker_killed_mid_run_costs_time_only(engine: str, whole: WalkForward, tmp_path: Path, scheduler: str,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mortal, "graves", tmp_path, raising=False)
    monkeypatch.setattr(module, "_Walker", Mortal)
    same(scale_out(PANEL, TRACKS, engine=engine, workers=2, parts=4, scheduler=scheduler), whole)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_chunk_that_always_kills_its_worker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mortal, "graves", tmp_path, raising=False)
    monkeypatch.setattr(Mortal, "deaths", 1000)
    monkeypatch.setattr(module, "_Walker", Mortal)
    with pytest.raises(InputError, match="a worker died") as err:
        scale_out(PANEL, TRACKS[:4], engine="joblib", workers=2, parts=2)
    assert err.value.code == "WORKER_LOST"


class Forgetful:
    """A cluster that loses what was sent to it, and every job that needs it, `times` times."""

    def __init__(self, times: int) -> None:
        self.times, self.sent = times, 0

    def scatter(self, work: Any, **_: Any) -> Any:
        self.sent += 1
        return work

    def submit(self, call: Any, work: Any, chunk: Any, **_: Any) -> Future[Any]:
        job: Future[Any] = Future()
        if self.sent <= self.times and 0 in chunk:
            job.set_exception(CancelledError())
        else:
            job.set_result(call(work, chunk))
        return job


def test_a_panel_that_went_with_its_worker_is_sent_again() -> None:
    work, chunks, once = _Walker(PANEL, TRACKS[:4], {}), [[0, 1], [2, 3]], Forgetful(1)
    done = module._on_client(once, work, chunks, KeyError)
    assert once.sent == 2 and list(done) == [0, 1]
    for i, chunk in enumerate(chunks):
        same(done[i], run_tracks(PANEL, [TRACKS[k] for k in chunk]))
    always = Forgetful(1000)
    with pytest.raises(InputError, match="a worker died") as err:
        module._on_client(always, work, chunks, KeyError)
    assert err.value.code == "WORKER_LOST" and always.sent == module.ATTEMPTS


def test_an_error_in_a_chunk_is_the_error_of_the_walk(scheduler: str) -> None:
    for engine in ("serial", "joblib", "dask"):
        with pytest.raises(InputError, match="no session between"):
            scale_out(PANEL, TRACKS[:2], engine=engine, workers=2, scheduler=scheduler, start="2200-01-01")


def test_settings_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(InputError, match="engine must be one of"):
        scale_out(PANEL, TRACKS, engine="ray")
    with pytest.raises(InputError, match="progress"):
        scale_out(PANEL, TRACKS, engine="serial", progress=lambda x, n: x)
