"""Recipes: the published one, overrides, and one line about a bad one."""

import pytest

from sartor.core import UserError
from sartor.training.recipe import Recipe


def test_paper_is_as_published() -> None:
    recipe = Recipe.paper()
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.warmup_lr, recipe.warmup_epochs) == (
        360,
        1024,
        0.5,
        0.1,
        5,
    )
    assert (recipe.momentum, recipe.weight_decay, recipe.dropout) == (0.9, 4e-5, 0.2)
    assert (recipe.label_smoothing, recipe.clip_norm, recipe.decay_bias_and_norm) == (0.1, 5.0, False)
    assert Recipe.paper(epochs=90).epochs == 90


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 3}, ("epoch", "did you mean 'epochs'")),
        ({"epochs": 0}, ("epochs=0", "greater than or equal to 1")),
        ({"lr": "fast"}, ("lr='fast'", "number")),
        ({"epochs": 3, "warmup_epochs": 3}, ("warmup_epochs=3", "below epochs=3")),
        ({"optimiser": "adam"}, ("optimiser='adam'", "adamw")),
        ({"optimiser": "adamw", "nesterov": True}, ("nesterov", "optimiser=sgd")),
        ({"precision": "8"}, ("precision='8'", "bf16-mixed")),
    ],
)
def test_bad_values_are_one_line(values: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        Recipe().override(values)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_override_reads_text_as_the_command_line_gives_it() -> None:
    assert Recipe().override({"epochs": "7", "lr": "0.2", "clip_norm": None}).model_dump() == {
        **Recipe().model_dump(),
        "epochs": 7,
        "lr": 0.2,
        "clip_norm": None,
    }


def test_rates_follow_the_optimiser_unless_they_were_given() -> None:
    plain, other = Recipe(), Recipe(optimiser="adamw")
    assert (plain.optimiser, plain.lr, plain.warmup_lr, plain.weight_decay) == ("sgd", 0.1, 0.01, 5e-4)
    assert (other.lr, other.warmup_lr, other.weight_decay) == (1e-3, 1e-5, 0.01)
    assert other.override({"optimiser": "sgd"}) == plain
    assert plain.override({"lr": 0.3}).override({"optimiser": "adamw", "epochs": 3}).lr == 0.3
    assert Recipe.paper().optimiser == "sgd"


def test_each_method_has_its_published_recipe() -> None:
    ours, theirs = Recipe.paper("surgenas"), Recipe.paper("lightnas")
    assert (ours.epochs, ours.weight_decay) == (400, 3e-5)
    assert (theirs.epochs, theirs.weight_decay) == (360, 4e-5)
    assert Recipe.paper("surgenas", epochs=7).epochs == 7
    plain = Recipe.paper("domino")
    assert (plain.epochs, plain.batch_size, plain.lr, plain.label_smoothing, plain.clip_norm) == (
        180,
        1024,
        0.5,
        0,
        None,
    )
    with pytest.raises(UserError, match="publishes no recipe"):
        Recipe.paper("mathnas")
