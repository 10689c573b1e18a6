"""Timing: rounds, order, reference, failures. Networks are plain callables here, no clock is asserted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sartor.core import Measurement
from sartor.targets.conditions import conditions, cpu_model
from sartor.targets.pack import Failed
from sartor.targets.timing import drift, interleave, visit


def test_networks_are_interleaved_in_shuffled_rounds():
    order = []
    runs = [lambda k=k: order.append(k) for k in range(5)]

    def sample(run):
        run()
        return float(len(order))

    timed = interleave(runs, lambda: order.append(5), sample, 20, np.random.default_rng(0))
    rounds = [order[k : k + 6] for k in range(0, len(order), 6)]
    assert all(sorted(r) == list(range(6)) for r in rounds), "every network once a round, the reference among them"
    assert len({tuple(r) for r in rounds}) > 10, "in another order each round"
    assert len({r.index(5) for r in rounds}) > 2, "the reference has no fixed place"
    for k, one in enumerate(timed):
        assert one.samples == tuple(6.0 * i + r.index(k) + 1 for i, r in enumerate(rounds)), "all samples are kept"
        assert one.reference == tuple(6.0 * i + r.index(5) + 1 for i, r in enumerate(rounds)), "of the same rounds"


def test_one_failure_does_not_stop_the_others():
    count = [0]

    def breaks():
        count[0] += 1
        if count[0] == 3:
            raise MemoryError("no room\nfor this")

    runs = [lambda: None, breaks, Failed("build", "ValueError: no such block"), lambda: None]

    def sample(run):
        run()
        return 1.0

    timed = interleave(runs, None, sample, 5, np.random.default_rng(0))
    assert [len(one.samples) for one in timed] == [5, 0, 0, 5]
    assert timed[1].failed == Failed("run", "MemoryError: no room")
    assert timed[2].failed == Failed("build", "ValueError: no such block")
    assert count[0] == 3, "what has failed is not visited again"


def test_rounds_go_on_until_the_reference_is_steady():
    def times(sequence):
        left = iter(sequence)
        return lambda: next(left)

    def rounds(reference, longest=4, **more):
        own, rng = times(reference), np.random.default_rng(0)
        ran = interleave([lambda: 1.0], own, lambda run: run(), 2, rng, longest, **more)
        assert len(ran[0].samples) == len(ran[0].reference)
        return len(ran[0].samples)

    assert rounds([1.0, 1.0]) == 2
    assert rounds([1.5, 1.0, 1.0, 1.0]) == 4, "of all samples together"
    assert rounds([1.0, 2.0] * 4) == 8
    assert rounds([1.0, 2.0] * 4, longest=1) == 2
    assert rounds([2.0, 2.0, 1.0, 1.0, 1.0, 1.0], before=1.0) == 6, "slow evenly is not steady"
    assert rounds([2.0, 2.0], before=2.0) == 2, "a machine that has become slower is"
    assert rounds([1.0, 2.0] * 8 + [1.0, 1.0], patience_s=60) == 18, "few rounds do not take long"


def test_a_failing_reference_leaves_the_networks_their_numbers():
    def sample(run):
        return float(run())

    timed = interleave([lambda: 2.0], lambda: 1 / 0, sample, 3, np.random.default_rng(0))
    assert timed[0].samples == (2.0, 2.0, 2.0)
    assert timed[0].reference == ()


def test_a_visit_lasts_as_long_as_asked():
    count = [0]

    def run():
        count[0] += 1

    assert visit(run, min_ms=0, min_runs=4) > 0
    assert count[0] == 5, "four timed and one before them"
    visit(run, min_ms=2, min_runs=1)
    assert count[0] > 50


@pytest.mark.parametrize(
    ("reference", "moved"), [((1.0, 1.0, 5.0, 1.0, 1.0, 1.0), 0.0), ((1, 1, 1.1, 1.2, 1.3, 1.25), 0.25)]
)
def test_drift_is_of_the_floor_not_of_outliers(reference, moved):
    assert drift(reference) == pytest.approx(moved)


def measured(samples, reference=(), anchor=None):
    return Measurement("k", (0,), "latency_ms", tuple(samples), tuple(reference), anchor=anchor)


def test_a_machine_that_slows_down_does_not_change_the_value():
    noise = np.random.default_rng(0).uniform(1, 1.03, (2, 12))
    for slower in (1.0, 1.3):
        one = measured(5 * slower * noise[0], 7 * slower * noise[1], anchor=7.0)
        assert one.steady
        assert one.value == pytest.approx(5.0, rel=0.02)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20), st.floats(0.1, 100))
def test_without_an_anchor_or_a_steady_reference_the_minimum_counts(samples, anchor):
    disturbed = (1.5, 1.5, 3.0, 3.0, 3.0)
    for one in (measured(samples), measured(samples, samples), measured(samples, (0.0, 0.0), anchor)):
        assert one.value == min(samples)
    assert measured(samples, disturbed, anchor).value == min(samples)
    assert not measured(samples, disturbed).steady
    assert not measured(samples, (0.0, 0.0)).steady
    assert measured(samples, (2.0, 2.1), anchor).value == pytest.approx(min(samples) / 2.0 * anchor)


def test_conditions_are_read_where_there_are_any(tmp_path):
    assert {"host", "time", "cores", "load_1min"} <= conditions(tmp_path).keys()
    assert "governor" not in conditions(tmp_path)
    cpu = tmp_path / "devices/system/cpu/cpu0/cpufreq"
    cpu.mkdir(parents=True)
    (cpu / "scaling_governor").write_text("powersave\n")
    (cpu / "scaling_cur_freq").write_text("1800000\n")
    for k, temperature in enumerate(("45000", "61500", "broken")):
        zone = tmp_path / f"class/thermal/thermal_zone{k}"
        zone.mkdir(parents=True)
        (zone / "temp").write_text(temperature)
    now = conditions(tmp_path)
    assert (now["governor"], now["frequency_mhz"], now["temperature_c"]) == ("powersave", 1800.0, 61.5)


def test_the_processor_is_named(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\nflags\t: a\n\nprocessor\t: 1\n")
    assert cpu_model(info) == "Some CPU @ 2 GHz"
    info.write_text("processor\t: 0\nCPU part\t: 0xd0b\n\nModel\t\t: Raspberry Pi 5 Model B\n")
    assert cpu_model(info) == "Raspberry Pi 5 Model B"
    assert cpu_model(tmp_path / "missing")
