"""Whatever stands still for a while, no run is lost that would have finished."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest

from cifarray.errors import StoreAwayError
from cifarray.runs import ENDED, Run
from cifarray.store import Store
from tests.simulated_runs import END_S, Schedule, World, simulate
from tests.unit.runs.conftest import run_spec

SCHEDULES = 1200
LOST_AFTER_S = 90.0


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """What a submission of a run leaves in the store."""
    store = Store.open(str(tmp_path_factory.mktemp("store")))
    Run.create(store, run_spec("train-digits-261123-100000-abcd"))
    return {entry.key: store.read(entry.key) for entry in store.list()}


def is_lost(world: World) -> bool:
    """Whether the run has not finished though its driver would have."""
    return world.schedule.crashes_at is None and (
        not world.objects or world.run.status().state != "finished"
    )


def test_no_run_is_lost_that_would_have_finished(objects: Mapping[str, bytes]) -> None:
    began, followed, refused, acted, crashed, resumed = time.process_time(), 0, 0, 0, 0, 0
    for seed in range(SCHEDULES):
        schedule = Schedule.drawn(Random(seed))
        world = simulate(schedule, objects)
        assert not is_lost(world), f"seed {seed}: {schedule}"
        for outcome, was_alive in world.outcomes:
            followed += outcome.state == "finished"
            assert not (outcome.cause and was_alive), f"seed {seed}: {outcome}"
        refused, acted = refused + world.refused, acted + world.acted
        if not world.objects or world.run.status().state == "finished":
            continue
        crashed += 1  # and what is really dead can be resumed, whoever saw it die or not
        world.resume()
        world.schedule = replace(schedule, crashes_at=None)
        world.pass_until(world.time + END_S)
        assert world.run.status().state == "finished", f"seed {seed}: {schedule}"
        resumed += 1
    assert followed > SCHEDULES / 3 and refused > 200 and acted > 50 and resumed > 50
    assert crashed == resumed
    assert time.process_time() - began < 60


def close_what_is_silent(world: World) -> None:
    """As a follower did: a dashboard that is silent, or a clock, is the death of a run."""
    while world.time < END_S / 2:
        with suppress(StoreAwayError):
            status = world.run.status()
            if status.state in ENDED:
                return
            if world.is_paused("dashboard"):
                world.run.mark_failed("the Ray node ended while the run was on it")
        world.sleep(4.0)


def test_the_simulation_loses_runs_by_the_rule_that_silence_is_death(
    objects: Mapping[str, bytes],
) -> None:
    """What the test above would miss if it could not fail."""
    lost = 0
    for seed in range(300):
        world = simulate(Schedule.drawn(Random(seed)), objects, close_what_is_silent)
        lost += is_lost(world)
    assert lost > 10
