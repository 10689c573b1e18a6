"""What every chooser keeps to."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch

from sartor.core import Architecture, Chooser, F, SearchSpace


def check_chooser(
    make: Callable[[], Chooser], space: SearchSpace, score: Callable[[Sequence[Architecture]], F], rounds: int = 6
) -> None:
    """Asked architectures are canonical, two of a kind agree, and a resumed one goes on as if nothing had happened.

    make: a fresh chooser of the space, the same each time.
    """
    one, other = make(), make()
    for round_ in range(rounds):
        asked = one.ask()
        assert asked == other.ask()
        assert [space.canonical(arch) for arch in asked] == asked
        assert len(set(asked)) == len(asked)
        values = score(asked) if asked else np.zeros(0)
        if round_ == 1 and len(values):
            values[0] = np.nan  # a failure must not stop it
        one.tell(asked, values)
        other.tell(asked, values)
        if round_ == rounds // 2:
            buffer = io.BytesIO()
            torch.save(other.state_dict(), buffer)
            buffer.seek(0)
            other = make()
            other.load_state_dict(torch.load(buffer, weights_only=True))  # state is data
