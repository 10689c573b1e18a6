"""Energy counters on fake system trees."""

import threading
import time

import pytest

from sartor.core import UserError
from sartor.targets import get
from sartor.targets.energy import Nvml, cpu_counters, per_run_mj


def write(root, **files):
    root.mkdir(parents=True)
    for name, text in files.items():
        (root / name).write_text(f"{text}\n")


def powercap(root):
    zones = root / "class" / "powercap"
    limit = 262143328850
    for zone, name in {
        "intel-rapl:0": "package-0",
        "intel-rapl:1": "package-1",
        "intel-rapl:0:0": "core",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }.items():
        write(zones / zone, name=name, energy_uj=1000, max_energy_range_uj=limit)
    write(zones / "intel-rapl", enabled=1)
    return zones


def test_powercap_sums_top_level_packages_only(tmp_path):
    zones = powercap(tmp_path)
    (counter,) = cpu_counters(tmp_path)

    def work():
        for zone, now in {
            "intel-rapl:0": 6000,
            "intel-rapl:1": 3000,
            "intel-rapl:0:0": 9e5,
            "intel-rapl:2": 9e5,
        }.items():
            (zones / zone / "energy_uj").write_text(f"{int(now)}\n")

    assert counter.name == "powercap"
    assert counter.window(work) == pytest.approx(7.0)


def test_powercap_counter_that_wraps(tmp_path):
    zones = powercap(tmp_path)
    (zones / "intel-rapl:0" / "energy_uj").write_text("262143328000\n")
    (counter,) = cpu_counters(tmp_path)
    assert counter.window(lambda: (zones / "intel-rapl:0" / "energy_uj").write_text("150\n")) == pytest.approx(1.0)


def ina3221(root, labels=("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"), name="ina3221"):
    chip = root / "class" / "hwmon" / "hwmon1"
    write(chip, name=name)
    for k, label in enumerate(labels, 1):
        (chip / f"in{k}_label").write_text(f"{label}\n")
        (chip / f"in{k}_input").write_text("5000\n")
        (chip / f"curr{k}_input").write_text(f"{1000 * k}\n")
    return chip


@pytest.mark.parametrize(
    ("labels", "watts"), [(("VDD_CPU", "VDD_IN", "NC"), 10.0), (("VDD_CPU", "VDD_SOC", "NC"), 15.0)]
)
def test_jetson_power_is_integrated(tmp_path, labels, watts):
    """The rail that feeds all others alone, else the sum of the labelled ones; power times time."""
    ina3221(tmp_path, labels)
    (counter,) = cpu_counters(tmp_path)
    took, threads = [], threading.active_count()

    def work():
        began = time.monotonic()
        time.sleep(0.15)
        took.append(time.monotonic() - began)

    assert counter.window(work) == pytest.approx(took[0] * watts * 1e3, rel=0.3)
    assert threading.active_count() == threads  # the sampling thread has ended


def test_jetson_power_follows_the_load(tmp_path):
    chip = ina3221(tmp_path, ("VDD_IN",))
    (counter,) = cpu_counters(tmp_path)
    idle = counter.window(lambda: time.sleep(0.1))

    def work():
        (chip / "curr1_input").write_text("20000\n")
        time.sleep(0.1)

    assert counter.window(work) > 5 * idle


def test_other_monitors_are_left_alone(tmp_path):
    ina3221(tmp_path, name="k10temp")
    assert cpu_counters(tmp_path) == []


def test_energy_of_a_run_is_the_mean_of_a_loop():
    spent = [0]

    def run():
        spent[0] += 30
        time.sleep(0.001)

    assert per_run_mj(Nvml(lambda: spent[0]), run, window_s=0.05) == pytest.approx(30)
    assert spent[0] > 60


def test_without_a_counter_the_error_says_what_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.setattr("sartor.targets.energy.cpu_counters", lambda: cpu_counters(tmp_path))
    from tests.toys import ToySpace

    with pytest.raises(UserError, match=r"cannot measure energy_mj.*powercap.*ina3221.*NVML"):
        get("onnxruntime:cpu").measure(ToySpace(), [(0, 0, 0, 0)], ["energy_mj"])
