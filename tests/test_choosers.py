"""Choosers: the contract, and what is random search's own."""

from __future__ import annotations

import numpy as np
import pytest

from sartor.choose.sample import RandomSearch
from sartor.core import UserError
from tests.contracts.choosers import check_chooser
from tests.fakes import Grid, Ragged, additive


@pytest.mark.parametrize("space", [Ragged(), Grid(6, 4)], ids=["ragged", "grid"])
@pytest.mark.parametrize("batch", [1, 5])
def test_random_search_keeps_the_contract(space, batch) -> None:
    check_chooser(lambda: RandomSearch(space, batch=batch, seed=3), space, additive(space))


def test_random_search_visits_a_small_space_once_each_and_then_has_nothing_to_ask() -> None:
    space = Grid(3, 3)
    search, seen = RandomSearch(space, batch=4), []
    while asked := search.ask():
        seen += asked
        search.tell(asked, np.zeros(len(asked)))
    assert sorted(seen) == sorted(space.enumerate())


def test_a_batch_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="batch=0"):
        RandomSearch(Grid(2, 2), batch=0)
