"""A network that exchanges blocks to keep a latency limit. This file needs numpy and onnxruntime, not sartor.

    from controller import DynamicNetwork

    network = DynamicNetwork("dynamic", limit_ms=20)
    for frame in camera:
        answer = network(frame)  # watches its own latency and exchanges blocks when it has to
    network.limit_ms = 12  # the budget has changed

Q. Wang, S. Cao et al., "MathNAS", NeurIPS 2023, section 3.4. The mean latency of a window is compared with the limit.
When it is above, or far below, all latencies of the tables are scaled to what the second half of the window measured;
where it became slower within the window, after half a window more. Too slow: every change of one block by one level is
tried, and where none keeps the limit the best network of all is computed exactly. Too fast: the best of all at once
(published: one level there too), because to compute it takes less than a run. Only blocks that differ are loaded.
`python controller.py DIRECTORY --limit 20` shows it.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import onnxruntime

RISE = 1.1  # from one half of a window to the other: the machine became slower in between
Choice = tuple[int, ...]
"""A block of every slot, as `files` of dynamic.json are numbered."""


class Tables:
    """What blocks cost and what they are worth: latency adds up, quality is a sum or a ratio of two sums."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._latency, self._worth = _sums(data["latency_ms"]), _sums(data["quality"])
        self._over = _sums(data["quality"]["over"]) if data["quality"]["over"] else None
        self._sign = 1.0 if data["better"] == "more" else -1.0
        self._order = [np.argsort(column, kind="stable").tolist() for column in self._latency[1]]

    def latency(self, choice: Choice) -> float:
        """Milliseconds, as measured when the tables were made."""
        return _total(self._latency, choice)

    def quality(self, choice: Choice) -> float:
        """In the unit of its metric."""
        return _total(self._worth, choice) / (1.0 if self._over is None else _total(self._over, choice))

    def fastest(self) -> Choice:
        return tuple(int(np.argmin(column)) for column in self._latency[1])

    def better(self, one: Choice, other: Choice) -> bool:
        """Whether the quality of one is above that of the other."""
        return self._sign * (self.quality(one) - self.quality(other)) > 1e-12 * abs(self.quality(other))

    def lower(self, choice: Choice, most: float) -> Choice | None:
        """The best network within `most` ms with the next faster block in one slot; None where there is none."""
        moves = []
        for i, (k, order) in enumerate(zip(choice, self._order)):
            level = order.index(k)
            if level:
                moves.append((*choice[:i], order[level - 1], *choice[i + 1 :]))
        moves = [move for move in moves if self.latency(move) <= most]
        return max(moves, key=lambda move: self._sign * self.quality(move), default=None)

    def best(self, most: float) -> Choice | None:
        """The best of all networks within `most` ms; None where there is none.

        A ratio is maximised by Dinkelbach's iteration, a sum by merging slot by slot what is not dominated.
        """
        found = self._linear(0.0, most)
        while found is not None and self._over is not None:
            again = self._linear(self.quality(found), most)
            assert again is not None  # the same limit
            if not self.better(again, found):
                break
            found = again
        return found

    def _linear(self, ratio: float, most: float) -> Choice | None:
        costs, gains = np.array([self._latency[0]]), np.zeros(1)
        choices = np.zeros((1, 0), dtype=np.int16)
        least = [float(column.min()) for column in self._latency[1]]
        for i, (cost, worth) in enumerate(zip(self._latency[1], self._worth[1])):
            gain = self._sign * (worth if self._over is None else worth - ratio * self._over[1][i])
            total, value = (costs[:, None] + cost).ravel(), (gains[:, None] + gain).ravel()
            order = np.lexsort((-value, total))
            order = order[total[order] <= most - sum(least[i + 1 :])]
            better = np.maximum.accumulate(np.concatenate([[-np.inf], value[order]]))[:-1] < value[order]
            kept = order[better]
            choices = np.hstack([choices[kept // len(cost)], (kept % len(cost))[:, None].astype(np.int16)])
            costs, gains = total[kept], value[kept]
        return tuple(map(int, choices[-1])) if len(choices) else None


def _sums(data: dict[str, Any]) -> tuple[float, list[Any]]:
    return float(data["const"]), [np.asarray(column, dtype=float) for column in data["blocks"]]


def _total(sums: tuple[float, list[Any]], choice: Choice) -> float:
    return sums[0] + float(sum(column[k] for column, k in zip(sums[1], choice)))


@dataclass(frozen=True)
class Event:
    """A window after which something was decided.

    reason: slow, fast or limit (changed by the caller); mean_ms: of the window; scale: measured over the tables'
    latency; search: `one block`, `exact` or `fastest` (no network keeps the limit); swapped: blocks that differ;
    search_ms, switch_ms: time it took.
    """

    reason: str
    mean_ms: float
    scale: float
    before: Choice
    after: Choice
    search: str
    swapped: int
    search_ms: float
    switch_ms: float


class DynamicNetwork:
    """The network in `directory`; call it like a function on NumPy arrays.

    limit_ms: what the mean latency of a window has to keep; default: that of the file. floor: share of the limit below
    which a better network is looked for; margin: share of the limit that a network chosen leaves free; window, warmup:
    runs that are averaged, and runs before that which are not counted; threads: of each run; resident: keep all blocks
    loaded, which switches at once and takes the memory of all.
    """

    def __init__(
        self,
        directory: str | Path,
        limit_ms: float | None = None,
        *,
        floor: float = 0.8,
        margin: float = 0.03,
        window: int = 20,
        warmup: int = 10,
        threads: int = 1,
        resident: bool = False,
    ) -> None:
        self.directory = Path(directory)
        data = json.loads((self.directory / "dynamic.json").read_text())
        self.tables, self.chain, self.inputs = Tables(data), data["chain"], data["inputs"]
        self.floor, self.margin, self.window, self.warmup = floor, margin, window, warmup
        self.scale, self.feasible = 1.0, True
        self.events: deque[Event] = deque(maxlen=1000)
        self._options = _session_options(threads)
        self._times: list[float] = []
        self._skip = 0
        self._steps: list[tuple[Any, Any]] = []
        self._output: Any = None
        self._loaded: dict[str, Any] = {}
        self._resident = resident
        if resident:
            self._loaded = {file: self._load(file) for piece in self.chain for file in piece["files"]}
        known = data["limit_ms"] if limit_ms is None else limit_ms
        self._limit = np.inf if known is None else _checked(known)
        self.choice = self._search("limit")[0]
        self.switch(self.choice)

    # ------------------------------------------------------------------ running

    def __call__(self, *inputs: Any) -> Any:
        """One inference, timed and watched. Arrays of the shapes in `inputs` of dynamic.json, batch first, float32.

        `input` there says how pixels become inputs: (pixel - mean) / std, by channel.
        """
        began = time.perf_counter()
        output = self.run(*inputs)
        self.observe((time.perf_counter() - began) * 1e3)
        return output

    def run(self, *inputs: Any) -> Any:
        """One inference that nobody watches."""
        for i, x in enumerate(inputs):
            self._steps[0][1].bind_ortvalue_input(f"input{i}", _value(np.ascontiguousarray(x)))
        for session, binding in self._steps:
            session.run_with_iobinding(binding)
        return np.array(self._output.numpy())

    def switch(self, choice: Sequence[int]) -> int:
        """Run as another network from now on; loads what is not loaded. Returns how many blocks differ."""
        new = self.files(choice)
        before = self._loaded
        loaded = {file: before[file] if file in before else self._load(file) for file in new}
        self._loaded = {**before, **loaded} if self._resident else loaded
        self._join([loaded[file] for file in new])
        swapped = sum(a != b for a, b in zip(self.choice, choice))
        self.choice = tuple(choice)
        self._times, self._skip, self._waited = [], self.warmup, False
        return swapped

    def _join(self, sessions: Sequence[Any]) -> None:
        """Lead the output of each to the next through a buffer: a run allocates nothing."""
        self._steps = []
        for i, session in enumerate(sessions):
            binding = session.io_binding()
            if i:
                binding.bind_ortvalue_input("input0", self._output)
            shape = session.get_outputs()[0].shape
            self._output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cpu")
            binding.bind_ortvalue_output("output", self._output)
            self._steps.append((session, binding))

    def files(self, choice: Sequence[int]) -> list[str]:
        """What a network is made of, in order."""
        slots = iter(choice)
        return [piece["files"][next(slots) if piece["slot"] is not None else 0] for piece in self.chain]

    def _load(self, file: str) -> Any:
        return onnxruntime.InferenceSession(self.directory / file, self._options, providers=["CPUExecutionProvider"])

    # ------------------------------------------------------------------ watching

    @property
    def limit_ms(self) -> float:
        return float(self._limit)

    @limit_ms.setter
    def limit_ms(self, limit: float) -> None:
        self._limit = _checked(limit)
        self._decide("limit", self.predicted_ms)

    @property
    def predicted_ms(self) -> float:
        """Of the network that runs, at the speed that was last measured."""
        return self.scale * self.tables.latency(self.choice)

    def observe(self, ms: float) -> Event | None:
        """Tell the latency of a run (calling the network does); the event if something was decided."""
        if self._skip:
            self._skip -= 1
            return None
        self._times.append(ms)
        if len(self._times) < self.window:
            return None
        first, last = self._times[: self.window // 2], self._times[self.window // 2 :]
        mean, now = fmean(self._times), fmean(last)
        moved = now > RISE * fmean(first) or now <= self._limit  # slower within the window, or over already
        changed = mean > self._limit and moved and not self._waited
        self._times, self._waited = last if changed else [], changed
        if changed or self.floor * self._limit <= mean <= self._limit:
            return None
        self.scale = now / self.tables.latency(self.choice)
        return self._decide("slow" if mean > self._limit else "fast", mean)

    def _decide(self, reason: str, mean: float) -> Event | None:
        began, before, kept = time.perf_counter(), self.choice, self.feasible
        choice, search = self._search(reason)
        searched = time.perf_counter()
        if kept and not self.feasible:
            warnings.warn(
                f"no network keeps {self._limit:g} ms at the present speed; the fastest of all runs from now on",
                RuntimeWarning,
                stacklevel=4,
            )
        if choice == before or (reason == "fast" and not self.tables.better(choice, before)):
            return None
        swapped = self.switch(choice)
        times = (searched - began) * 1e3, (time.perf_counter() - searched) * 1e3
        event = Event(reason, mean, self.scale, before, choice, search, swapped, *times)
        self.events.append(event)
        return event

    def _search(self, reason: str) -> tuple[Choice, str]:
        """Where it is slow a change of one block, or else the best of all networks, or else the fastest."""
        most = self._limit * (1 - self.margin) / self.scale
        lower = self.tables.lower(self.choice, most) if reason == "slow" else None
        best = self.tables.best(most) if lower is None else None
        self.feasible = lower is not None or best is not None
        if lower is not None:
            return lower, "one block"
        return (self.tables.fastest(), "fastest") if best is None else (best, "exact")


def _checked(limit: Any) -> float:
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < float("inf"):
        raise ValueError(f"limit_ms={limit!r} is not possible; give a number of milliseconds above 0.")
    return float(limit)


def _value(x: Any) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(x)


def _session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry(
        "session.force_spinning_stop", "1"
    )  # each block has a session: none may idle busily
    return options


def main() -> None:
    asked = argparse.ArgumentParser(description="Run a dynamic network on random inputs and print what it decides.")
    asked.add_argument("directory")
    asked.add_argument("--limit", type=float, help="milliseconds; default: that of the file")
    asked.add_argument("--runs", type=int, default=500)
    asked.add_argument("--threads", type=int, default=1)
    given = asked.parse_args()
    network = DynamicNetwork(given.directory, given.limit, threads=given.threads)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape, dtype=np.float32) for shape in network.inputs]
    print(f"limit {network.limit_ms:g} ms, starts with {network.choice}: {network.predicted_ms:.3g} ms predicted")
    for i in range(given.runs):
        seen = len(network.events)
        network(*inputs)
        for event in list(network.events)[seen:]:
            print(
                f"run {i + 1}: {event.mean_ms:.3g} ms was {event.reason}; {event.before} -> {event.after} "
                f"({event.search}, {event.swapped} blocks, {event.search_ms:.2g} ms to decide, "
                f"{event.switch_ms:.2g} ms to load)"
            )


if __name__ == "__main__":
    main()
