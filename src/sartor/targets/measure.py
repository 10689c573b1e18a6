"""Measure what the store does not have yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sartor.core import SearchSpace
from sartor.core.method import Measurement, Target
from sartor.core.progress import Progress

if TYPE_CHECKING:
    from sartor.targets.store import Store


def measure(
    space: SearchSpace,
    target: Target,
    archs: Sequence[Sequence[int]],
    metrics: Sequence[str],
    store: Store,
    sitting: str = "default",
    resume: bool = True,
) -> list[Measurement]:
    """A measurement per architecture and metric, in the order given; each is in the store before it is used.

    What the store has of this target and sitting is not measured again; killed at any moment, the same call goes on
    where the last finished chunk ended. Failures to load or to run are tried again, failures to build or export are
    not: they do not depend on the moment. resume: False measures everything again and replaces what is there.
    Architectures that are one network are measured once.
    """
    wanted = {space.key(arch): space.canonical(arch) for arch in archs}
    store.register(space, wanted.values())
    found = store.known(wanted, target.id, metrics, sitting) if resume else {}
    found = {at: one for at, one in found.items() if one.error is None or one.conditions.get("stage") == "build"}
    bar = Progress("measure", len(wanted) * len(metrics), len(found))
    try:
        for metric in metrics:
            missing = [arch for key, arch in wanted.items() if (key, metric) not in found]
            for one in target.measure(space, missing, [metric], store.anchors(target.id, metric)):
                store.add(target.id, replace(one, anchor=store.anchor(target.id, one)), sitting, replace=not resume)
                bar.advance(status=one.error or "")
    finally:
        bar.close()
    found = store.known(wanted, target.id, metrics, sitting)  # another process may have been first
    return [found[space.key(arch), metric] for arch in archs for metric in metrics]
