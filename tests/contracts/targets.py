"""What every target must do."""

from __future__ import annotations

import math
import pickle

import pytest

from sartor.core import SearchSpace, Target, UserError


def check_target(target: Target, space: SearchSpace) -> None:
    """Measure a few architectures of `space` and check the contract of `core.method.Target`."""
    assert target.id == pickle.loads(pickle.dumps(target)).id, "an id does not depend on the moment or the object"
    assert "latency_ms" in target.metrics
    archs = [tuple(min(k, len(slot) - 1) for slot in space.slots) for k in range(2)]
    for name in {"latency_ms", "training_step_ms"} & target.metrics:
        found = list(target.measure(space, archs, [name]))
        assert [m.arch for m in found] == [space.canonical(arch) for arch in archs]
        for m in found:
            assert m.key == space.key(m.arch)
            assert m.metric == name
            assert m.error is None
            assert len(m.samples) == len(m.reference) > 0
            assert all(sample > 0 and math.isfinite(sample) for sample in (*m.samples, *m.reference))
            assert m.value <= m.median <= max(m.samples)
            assert {"host", "time", "cores", "drift"} <= m.conditions.keys()
            assert not any(str(m.conditions["time"]) in text for text in (target.id, m.key))
    assert list(target.measure(space, [], ["latency_ms"])) == []
    with pytest.raises(UserError, match="accuracy"):
        list(target.measure(space, archs, ["accuracy"]))
