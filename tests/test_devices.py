"""Widening within the Comfort Zone, rooflines, and groups of devices; devices with known laws, and this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor import spaces
from sartor.cli.devices import _base
from sartor.core import Architecture, Measurement, SearchSpace, UserError
from sartor.spaces.complexity import Complexity
from sartor.targets.ort import OnnxRuntime
from sartor.targets.store import Store
from sartor.targets.timing import Rounds
from sartor.workflow.grouping import group_devices, measured_devices
from sartor.workflow.roofline import roofline
from sartor.workflow.scaling import comfort_zone
from tests.fakes import Ragged

ARCH = (1, 3, 5, 1, 3, 5, 1, 3, 6)


class Law:
    """A device whose latency is a known function of the work; every sample is exact."""

    metrics = frozenset({"latency_ms"})

    def __init__(self, ms: Callable[[float], float], name: str = "law", spread: float = 0.0) -> None:
        self.id, self._ms, self._spread = name, ms, spread

    def measure(
        self, space: SearchSpace, archs: Sequence[Sequence[int]], metrics: Sequence[str], known=None
    ) -> Iterator[Measurement]:
        for arch in map(space.canonical, archs):
            ms = self._ms(float(Complexity(space, "macs")([arch])[0]))
            if ms != ms:
                yield Measurement(space.key(arch), arch, metrics[0], (), error="it melted")
                continue
            samples = tuple(ms * (1 + self._spread * k) for k in range(9))
            yield Measurement(space.key(arch), arch, metrics[0], samples)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as opened:
        yield opened


def macs(space: SearchSpace, arch: Architecture) -> float:
    return float(Complexity(space, "macs")([arch])[0])


# ---------------------------------------------------------------------- width


@pytest.mark.parametrize("reference", ["mobilenet:tiny?width=0.5", "nas-bench-201?width=8&cells=1&resolution=8"])
def test_a_scaled_space_has_the_same_slots_and_wider_networks(reference: str) -> None:
    space = spaces.get(reference)
    wide = space.scaled(2.0)
    arch = space.sample(np.random.default_rng(0), 1)[0]
    assert [s.candidates for s in wide.slots] == [s.candidates for s in space.slots]
    assert space.scaled(1.0) == space
    assert spaces.from_spec(wide.spec()) == wide
    assert macs(wide, arch) > 2 * macs(space, arch)
    window = space.restrict({0: [1, 2]})
    assert window.scaled(2.0) == wide.restrict({0: [1, 2]})


def test_a_space_without_a_width_says_so() -> None:
    with pytest.raises(UserError, match="no width to scale; use"):
        Ragged().scaled(1.5)


# ---------------------------------------------------------------------- the Comfort Zone


def test_the_zone_ends_where_a_device_begins_to_notice(store: Store) -> None:
    space = spaces.get("mobilenet:tiny")
    idle = 4.0 * macs(space, ARCH)  # a device that is idle below four times the work
    zone = comfort_zone(space, ARCH, Law(lambda work: max(1.0, work / idle)), store, tolerance=0.0)
    inside = [s.factor for s in zone.steps if s.macs <= idle]
    assert zone.factor == max(inside) > 1.5
    assert zone.space == space.scaled(zone.factor)
    assert [s.inside for s in zone.steps] == [s.macs <= idle for s in zone.steps]
    assert not zone.steps[-1].inside
    assert zone.steps[0].factor == zone.steps[0].ratio == 1.0
    assert zone.steps[-1].intensity > zone.steps[0].intensity, "dense layers grow faster than their traffic"
    assert zone.describe()["factor"] == zone.factor


def test_a_device_that_always_notices_has_none(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    space = spaces.get("mobilenet:tiny")
    with caplog.at_level("INFO", "sartor"):
        zone = comfort_zone(space, ARCH, Law(lambda work: work / 1e6), store)
    assert (zone.factor, zone.space) == (1.0, space)
    assert "no Comfort Zone" in caplog.text


def test_noise_widens_what_counts_as_equal(store: Store) -> None:
    space = spaces.get("mobilenet:tiny")
    strict, loose = (
        comfort_zone(space, ARCH, Law(lambda work: 1 + work / 1e9, f"law {s}", s), store, tolerance=0.0)
        for s in (0.0, 0.02)
    )
    assert strict.factor == 1.0
    assert strict.steps[0].allowed == 1.0
    assert loose.steps[0].allowed == pytest.approx(1.03), "but never by more than counts as equal latency"
    assert loose.factor > 1.0


def test_a_zone_without_an_end_stops_at_the_most(store: Store) -> None:
    zone = comfort_zone(spaces.get("mobilenet:tiny"), ARCH, Law(lambda work: 1.0), store, step=0.25, most=2.0)
    assert zone.factor == 2.0
    assert all(s.inside for s in zone.steps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": 0.0}, "step=0"),
        ({"most": 1.0}, "most=1"),
        ({"tolerance": -0.1}, "tolerance=-0.1"),
        ({"step": 2.0, "most": 2.5}, "larger --most"),
    ],
)
def test_steps_that_lead_nowhere_are_refused(store: Store, options: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        comfort_zone(spaces.get("mobilenet:tiny"), ARCH, Law(lambda work: 1.0), store, **options)


def test_a_width_that_cannot_be_measured_ends_the_zone_and_is_said(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    space = spaces.get("mobilenet:tiny")
    most = 1.5 * macs(space, ARCH)
    found = comfort_zone(space, ARCH, Law(lambda work: 1.0 if work < most else float("nan")), store)
    assert 1.0 < found.factor == found.steps[-1].factor
    assert "it melted" in caplog.text
    with pytest.raises(UserError, match="cannot be measured on law \\(it melted\\)"):
        comfort_zone(space, ARCH, Law(lambda work: float("nan")), store, sitting="again")


# ---------------------------------------------------------------------- this machine


def quick() -> OnnxRuntime:
    return OnnxRuntime(protocol=Rounds(chunk=12, rounds=3, visit_ms=0.5, warmup_ms=0.5, patience_s=0))


def test_layers_lie_under_the_roofs_that_were_measured(store: Store) -> None:
    space = spaces.get("mobilenet:tiny?width=0.5")
    roof = roofline(space, ARCH, quick(), store)
    assert roof["peak_gmacs_per_s"] > 0
    assert 0 < roof["memory_gb_per_s"] <= roof["cache_gb_per_s"]
    total = sum(layer["macs"] * layer["times"] for layer in roof["layers"])
    assert total == pytest.approx(macs(space, ARCH))
    for layer in roof["layers"]:
        assert layer["intensity"] == pytest.approx(layer["macs"] / layer["bytes"])
        assert layer["rate"] == pytest.approx(layer["macs"] / layer["latency_ms"] / 1e6)
        assert layer["rate"] < 2 * roof["peak_gmacs_per_s"], "a layer is not faster than the fastest operator"


def test_devices_are_measured_on_the_same_networks(store: Store) -> None:
    space = spaces.get("mobilenet:tiny?width=0.5")
    laws = [Law(lambda work: work / 1e6, "a"), Law(lambda work: work / 2e6, "b"), Law(lambda work: 1e6 / work, "c")]
    names, values = measured_devices(space, laws, 12, store)
    assert names == ["a", "b", "c"]
    assert values.shape == (12, 3)
    np.testing.assert_allclose(values[:, 0], 2 * values[:, 1])
    found = group_devices(names, values)
    assert found["groups"] == [["a", "b"], ["c"]]
    assert found["gamma"][0][1] == pytest.approx(2.0)


# ---------------------------------------------------------------------- groups


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 7))
def test_groups_are_a_partition_of_devices_that_agree(seed: int, devices: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.lognormal(size=(60, 3))
    which = rng.integers(0, 3, devices)
    values = kinds[:, which] * rng.uniform(0.1, 10, devices) * rng.normal(1, 0.002, (60, devices))
    names = [f"d{i}" for i in range(devices)]
    found = group_devices(names, values)
    assert sorted(n for group in found["groups"] for n in group) == sorted(names)
    home = {n: k for k, group in enumerate(found["groups"]) for n in group}
    for i in range(devices):
        for j in range(devices):
            assert (home[f"d{i}"] == home[f"d{j}"]) == (which[i] == which[j])
            assert found["r2"][i][j] == pytest.approx(found["r2"][j][i])
            assert found["kendall"][i][j] == pytest.approx(found["kendall"][j][i])


def test_agreement_is_asked_of_every_pair_of_a_group() -> None:
    rng = np.random.default_rng(0)
    base, noise = rng.uniform(1, 3, 300), rng.normal(size=300)
    values = np.stack([base, base + 0.05 * noise, base + 0.1 * noise], axis=1)  # a ~ b, b ~ c, a not ~ c
    found = group_devices(["a", "b", "c"], values)
    assert found["r2"][0][1] > 0.98
    assert found["r2"][1][2] > 0.98
    assert found["r2"][0][2] < 0.98
    assert found["groups"] == [["a", "b"], ["c"]]


def test_an_order_that_agrees_is_not_enough_without_proportion() -> None:
    base = np.random.default_rng(0).uniform(1, 3, 100)
    found = group_devices(["a", "squared"], np.stack([base, base**4], axis=1))
    assert found["kendall"][0][1] == pytest.approx(1.0)
    assert found["groups"] == [["a"], ["squared"]]


def test_failures_are_left_out_and_too_few_networks_are_refused() -> None:
    values = np.random.default_rng(0).uniform(1, 2, (12, 2))
    values[:2, 1] = np.nan
    assert group_devices(["a", "b"], values)["networks"] == 10
    values[2, 0] = np.nan
    with pytest.raises(UserError, match="9 networks with costs on all of 2 devices"):
        group_devices(["a", "b"], values)
    with pytest.raises(UserError, match="1 devices"):
        group_devices(["a"], values[:, :1])


def test_devices_that_share_a_search_cannot_have_two_budgets() -> None:
    assert _base(["a", "b"], [("b", "2ms"), (None, "9ms")]) == ("b", ["2ms"])
    with pytest.raises(UserError, match="a and b agree"):
        _base(["a", "b"], [("a", "1ms"), ("b", "2ms")])
