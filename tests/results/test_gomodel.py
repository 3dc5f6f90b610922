"""The model of Go's collector: its formulas against the guide's figures, its fit against itself."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.gomodel import (
    OFF,
    GoService,
    Measured,
    fit,
    gogc_goal_bytes,
    limit_for_goal_bytes,
    limit_goal_bytes,
)

MIB = 2**20
SERVICE = GoService(
    live_bytes=200 * MIB,
    roots_bytes=2 * MIB,
    limited_bytes=8 * MIB,
    resident_bytes=14 * MIB,
    peak_per_goal=1.02,
    allocation_rate=400 * MIB,
    cycle_cpu_s=0.06,
    mutator_cores=0.5,
    procs=2,
    cycle_wall_s=0.0,
)


def measured(service, gogc, memlimit, *, noise=1.0, seconds=5.0):
    """What an exact trial of the service would tell."""
    return Measured(
        gogc=gogc,
        memlimit_bytes=memlimit,
        live_bytes=service.live_bytes,
        goal_bytes=service.heap_goal_bytes(gogc, memlimit),
        roots_bytes=service.roots_bytes,
        peak_bytes=service.peak_bytes(gogc, memlimit) * noise,
        cycles=service.cycles_per_s(gogc, memlimit) * seconds,
        gc_cpu_s=service.gc_cores(gogc, memlimit) * seconds,
        service_cpu_s=(service.gc_cores(gogc, memlimit) + service.mutator_cores) * seconds,
        seconds=seconds,
        procs=service.procs,
        mark_s=service.mark_share(gogc, memlimit) * seconds,
    )


def test_the_heap_goal_is_that_of_gos_guide():
    # The guide's example: 8 MiB of heap, 1 MiB of stacks, 1 MiB of globals: 18 and 13 MiB.
    assert gogc_goal_bytes(8 * MIB, 2 * MIB, 100) == 18 * MIB
    assert gogc_goal_bytes(8 * MIB, 2 * MIB, 50) == 13 * MIB
    assert gogc_goal_bytes(1 * MIB, 0, 100) == 4 * MIB
    assert math.isinf(SERVICE.heap_goal_bytes(OFF, OFF))


def test_half_the_gogc_is_about_twice_the_collectors_time():
    ratio = SERVICE.gc_cores(50) / SERVICE.gc_cores(100)
    assert ratio == pytest.approx(2, rel=0.01)


def test_a_limit_caps_the_heap_and_never_below_what_is_alive():
    assert SERVICE.heap_goal_bytes(100, 300 * MIB) == pytest.approx(292 * MIB * 0.97)
    assert SERVICE.heap_goal_bytes(100, 100 * MIB) == SERVICE.live_bytes
    # Then the limiter steps in: half of two cores, and the heap grows beyond the goal.
    assert SERVICE.gc_cores(100, 100 * MIB) == 1.0
    assert SERVICE.peak_bytes(100, 100 * MIB) > SERVICE.live_bytes + 20 * MIB
    assert SERVICE.served_share(100, 100 * MIB) == 1.0
    assert SERVICE.scaled(load=3).served_share(100, 100 * MIB) == pytest.approx(1 / 1.5)


def test_arrays_give_arrays_and_numbers_give_numbers():
    both = SERVICE.peak_bytes(np.array([50.0, 100.0]), np.array([OFF, OFF]))
    assert list(both) == [SERVICE.peak_bytes(50), SERVICE.peak_bytes(100)]
    assert isinstance(SERVICE.gc_cpu_share(100), float)


@given(st.floats(1, 1e6), st.floats(0, 1e4))
def test_the_limit_for_a_goal_leaves_that_goal(goal_mib, limited_mib):
    limit = limit_for_goal_bytes(goal_mib * MIB, limited_mib * MIB)
    assert limit_goal_bytes(0, limited_mib * MIB, limit) == pytest.approx(goal_mib * MIB, rel=1e-6)


@given(st.floats(0.01, 0.99))
def test_the_limit_for_a_share_gives_that_share_or_the_limiters(share):
    limit = SERVICE.memlimit_for_gc_share(share)
    least = min(share, SERVICE.gc_cpu_share(OFF, 0.0))
    assert SERVICE.gc_cpu_share(OFF, limit) == pytest.approx(least, rel=1e-6)


def test_the_limit_at_which_collections_fill_half_of_the_time():
    service = GoService(**SERVICE.to_plain() | {"cycle_wall_s": 0.2})
    limit = service.memlimit_for_mark_share(0.5)
    assert service.mark_share(OFF, limit) == pytest.approx(0.5)
    assert service.mark_share(OFF, 100 * MIB) == 1.0
    assert SERVICE.mark_share(100) == 0.0, "not known"


@given(st.floats(10, 1000), st.floats(210, 2000))
def test_more_room_never_costs_more_of_the_collector(gogc, memlimit_mib):
    here = SERVICE.gc_cpu_share(gogc, memlimit_mib * MIB)
    assert SERVICE.gc_cpu_share(gogc * 1.1, memlimit_mib * MIB) <= here
    assert SERVICE.gc_cpu_share(gogc, memlimit_mib * MIB * 1.1) <= here


def test_a_fit_finds_the_service_that_made_the_trials():
    settings = [(100, OFF), (50, OFF), (300, OFF), (100, 300 * MIB), (400, 350 * MIB)]
    found = fit(measured(SERVICE, *setting) for setting in settings)
    for name, value in SERVICE.to_plain().items():
        if value is not None:
            assert getattr(found, name) == pytest.approx(value, rel=0.02), name
    assert found.error < 0.01


def test_one_trial_is_enough_for_a_first_guess():
    found = fit([measured(SERVICE, 100, OFF)])
    assert found.peak_bytes(50) == pytest.approx(SERVICE.peak_bytes(50), rel=0.05)
    assert found.gc_cpu_share(50) == pytest.approx(SERVICE.gc_cpu_share(50), rel=0.05)
    assert found.error is None


def test_trials_without_collections_teach_nothing():
    with pytest.raises(ValueError, match="no trial had a collection"):
        fit([measured(SERVICE, OFF, OFF)])
