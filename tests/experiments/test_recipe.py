from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY, tiny
from tombola.experiments.recipe import describe, load_recipe, parse_recipe, recipes
from tombola.experiments.sections import ControlSection
from tombola.pruning.scopes import Globally, Layerwise
from tombola.utils.errors import InputError

LAYERS = {"fc1.weight": (300, 784), "fc2.weight": (100, 300), "output.weight": (10, 100)}


def test_the_recipes_that_come_with_it_are_valid_and_say_what_they_are() -> None:
    assert set(recipes()) >= {"digits", "digits-noisy-labels", "lenet-mnist", "lenet-mnist-first-release"}
    for name, text in recipes().items():
        assert load_recipe(name).name == name
        assert any(data in describe(text) for data in ("digits", "MNIST", "CIFAR-10"))


@pytest.mark.parametrize(
    ("name", "lr", "length", "conv"),
    [
        ("conv2-cifar10", 2e-4, "20000it", 0.1),
        ("conv4-cifar10", 3e-4, "25000it", 0.1),
        ("conv6-cifar10", 3e-4, "30000it", 0.15),
        ("conv2-cifar10-dropout", 3e-4, "20000it", 0.1),
        ("conv4-cifar10-dropout", 2e-4, "25000it", 0.1),
        ("conv6-cifar10-dropout", 2e-4, "30000it", 0.15),
    ],
)
def test_convolutional_networks_have_the_settings_of_the_paper(
    name: str, lr: float, length: str, conv: float
) -> None:
    """Frankle & Carbin 2019, figure 2 and appendix H."""
    recipe = load_recipe(name)
    options = recipe.training
    assert (options.optimizer, options.lr, options.batch_size, str(options.length)) == ("adam", lr, 60, length)
    assert recipe.model.name == name[:4] + "-" + name[4]
    assert recipe.model.options == ({"dropout": 0.5} if "dropout" in name else {})
    shapes = {"conv1.weight": (64, 3, 3, 3), "fc1.weight": (256, 9), "o.weight": (10, 256)}
    assert recipe.search.scope_of(shapes) == Layerwise({"conv1.weight": conv, "fc1.weight": 0.2, "o.weight": 0.1})
    assert recipe.controls == {"reinit": ControlSection(draws=3)}


@pytest.mark.parametrize(
    ("name", "lr", "warmup"),
    [
        ("resnet20-cifar10", 0.1, "0it"),
        ("resnet20-cifar10-low-lr", 0.01, "0it"),
        ("resnet20-cifar10-warmup", 0.03, "20000it"),
        ("vgg19-cifar10", 0.1, "0it"),
        ("vgg19-cifar10-low-lr", 0.01, "0it"),
        ("vgg19-cifar10-warmup", 0.1, "10000it"),
    ],
)
def test_deeper_networks_have_the_settings_of_the_paper(name: str, lr: float, warmup: str) -> None:
    """Frankle & Carbin 2019, figure 2 and section 4."""
    recipe = load_recipe(name)
    options = recipe.training
    assert (options.optimizer, options.lr, options.momentum, options.decay) == ("sgd", lr, 0.9, 0.1)
    assert (str(options.warmup), options.schedule) == (warmup, "step")
    resnet = name.startswith("resnet")
    milestones = ["20000it", "25000it"] if resnet else ["80ep", "120ep"]
    assert [str(milestone) for milestone in options.milestones] == milestones
    assert (options.batch_size, str(options.length)) == ((128, "30000it") if resnet else (64, "112000it"))
    assert (recipe.data.flip, recipe.data.crop, recipe.data.validation) == (True, 4, 5000)
    layers = ["conv1.weight", "block1.shortcut.0.weight", "output.weight"] if resnet else ["conv1.weight", "output"]
    assert recipe.search.scope_of(dict.fromkeys(layers, (1,))) == Globally(("conv1.weight",), 0.2)


@pytest.mark.parametrize(("name", "alone"), [("resnet20-cifar10-openlth", []), ("vgg16-cifar10-openlth", ["output"])])
def test_openlths_networks_have_its_settings(name: str, alone: list[str]) -> None:
    """facebookresearch/open_lth, `cifar_resnet_20` and `cifar_vgg_16`."""
    recipe = load_recipe(name)
    options = recipe.training
    assert (options.lr, options.momentum, options.weight_decay, options.batch_size) == (0.1, 0.9, 1e-4, 128)
    assert (str(options.length), [str(m) for m in options.milestones]) == ("160ep", ["80ep", "120ep"])
    assert recipe.model.options == {"init": "kaiming-normal", "norm": "uniform"}
    assert recipe.search.leave_out == alone
    assert str(recipe.rewind.to) == "1000it"


def test_whatever_is_large_has_a_small_one() -> None:
    names = set(recipes())
    for name in names:
        if name.split("-")[0] in {"conv2", "conv4", "conv6", "resnet20", "vgg19", "vgg16"}:
            family = "-".join(part for part in name.split("-") if part in {name.split("-")[0], "cifar10", "openlth"})
            assert f"{family}-small" in names


def test_lenet_mnist_has_the_settings_of_the_paper() -> None:
    """Frankle & Carbin 2019, figure 2 and appendix G."""
    recipe = load_recipe("lenet-mnist")
    assert recipe.training.optimizer == "adam"
    assert recipe.training.lr == 1.2e-3
    assert recipe.training.batch_size == 60
    assert str(recipe.training.length) == "50000it"
    assert str(recipe.training.evaluate_every) == "100it"
    assert recipe.data.validation == 5000
    assert recipe.search.scope_of(LAYERS) == Layerwise({"fc1.weight": 0.2, "fc2.weight": 0.2, "output.weight": 0.1})
    assert (recipe.replicates, recipe.search.levels, recipe.controls) == (
        5,
        21,
        {"reinit": ControlSection(draws=3), "one_shot": ControlSection()},
    )


def test_openlth_prunes_globally_and_leaves_the_output_layer_out() -> None:
    assert load_recipe("lenet-mnist-openlth").search.scope_of(LAYERS) == Globally(("fc1.weight", "fc2.weight"), 0.2)


def test_a_recipe_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(recipes()["digits"].replace('name = "digits"\nrep', 'name = "mine"\nrep'))
    assert load_recipe(str(path)).name == "mine"


def test_a_resolved_recipe_is_the_same_recipe() -> None:
    for name in recipes():
        recipe = load_recipe(name, ["model.dropout=0.1"])
        assert parse_recipe(recipe.resolved(), "again") == recipe


def test_every_value_can_be_overridden() -> None:
    overrides = [
        "training.length=40ep",
        "training.lr=1",
        "search.one_shot=true",
        'search.leave_out=["fc1"]',
        "search.rates.fc2=0.5",
        "data.name=my.npz",
        "model.widths=[5, 5]",
        "name='other'",
    ]
    recipe = load_recipe("digits", overrides)
    assert str(recipe.training.length) == "40ep"
    assert recipe.training.lr == 1.0
    assert recipe.search.one_shot is True
    assert recipe.search.scope_of(LAYERS) == Layerwise({"fc2.weight": 0.5, "output.weight": 0.35})
    assert recipe.data.name == "my.npz"
    assert recipe.model.options == {"widths": [5, 5]}
    assert recipe.name == "other"


def test_a_final_density_is_reached_in_equal_steps() -> None:
    search = tiny(search={"levels": 4, "density": 0.0625}).search
    assert search.round_rate == pytest.approx(0.5)  # each round keeps the fourth root


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainin.lr=1", 'unknown key "trainin": did you mean "training"?'),
        ("training.speed=1", 'unknown key of [training] "speed" (known: batch_size, '),
        ("training.optimiser=adam", 'unknown key of [training] "optimiser": did you mean "optimizer"?'),
        ("search.level=3", 'unknown key of [search] "level": did you mean "levels"?'),
        ("training.optimizer=adm", 'training.optimizer: unknown optimizer "adm": did you mean "adam"?'),
        ("training.precision=fp8", 'training.precision: unknown precision "fp8": did you mean "fp32"?'),
        ("training.lr=fast", "training.lr: input should be a valid number, not 'fast'"),
        ("training.lr=0", "training.lr: input should be greater than 0, not 0"),
        ("training.lr=nan", "training.lr: input should be a finite number"),
        ("training.batch_size=1.5", "training.batch_size: input should be a valid integer"),
        ("training.length=10", 'training.length: should be a length such as "500it", "2ep" or "1ep5it", not 10'),
        ("training.length=0it", "length should be at least 1it"),
        ("training.momentum=1.5", "training.momentum: input should be less than 1, not 1.5"),
        ("search.rate=1.0", "search.rate: input should be less than 1, not 1.0"),
        ("search.density=0.1", "search: give either rate"),
        ("search.scope=globl", 'search.scope: unknown scope "globl": did you mean "global"?'),
        ("search.scope=global", "output_rate has no meaning with scope"),
        ("search.score=magnitud", 'unknown score "magnitud": did you mean "magnitude"?'),
        ("search.structure=neuron", 'unknown structure "neuron": did you mean "neurons"?'),
        ("search.structure=4:2", 'structure "4:2": of every m weights at least one should stay and one go'),
        ("search.structure=2:4", 'structure = "2:4" goes with levels = 1 and density = 0.5'),
        ("search.rounds=0", "search.rounds: input should be greater than or equal to 1, not 0"),
        ("search.levels=-1", "search.levels: input should be greater than or equal to 0, not -1"),
        ("search.rates.fc1=2.0", 'the rate of "fc1" should be at least 0 and less than 1, not 2'),
        ("data.scale=unit", 'unknown scale "unit": did you mean "unit-norm"?'),
        ("replicates=1001", "replicates: input should be less than or equal to 1000, not 1001"),
        ("replicates=0", "replicates: input should be greater than or equal to 1, not 0"),
        ("name=a/b", "name: string should match pattern"),
        ("rewind.to=later", 'should be a length such as "500it", "2ep" or "1ep5it", or "auto"'),
        ("verdict.confidence=95", "verdict.confidence: input should be less than or equal to 0.999, not 95"),
        ("controls.renit=1", 'unknown control "renit": did you mean "reinit"?'),
        ("controls.reinit=-1", "controls.reinit.draws: input should be greater than or equal to 0, not -1"),
        ("controls.reinit={draw=1}", 'unknown key of [controls.reinit] "draw": did you mean "draws"?'),
        ("controls.reinit=two", "controls.reinit: should be a section, [controls.reinit], not 'two'"),
        ("controls.reinit={levels=[9]}", "controls.reinit: there are 7 levels, and none is 9"),
        ("controls.large_init=2", "controls.large_init: nothing in it is drawn; should be 0 or 1, not 2"),
        ("verdict.control=reint", 'unknown control "reint": did you mean "reinit"?'),
        ("data.fraction=0", "data.fraction: input should be greater than 0, not 0"),
        ("data.label_noise=1.5", "data.label_noise: input should be less than or equal to 1, not 1.5"),
        ("rewind.to=auto", 'rewind.to: "auto" goes with a section [stability] and method = "weights"'),
        ("stability={candidates=['0it'],point=5}", 'unknown key of [stability] "point": did you mean "points"?'),
        ("training.length=1000000000000it", "should be a length of at most 1,000,000,000 epochs or iterations"),
        ("stability={candidates=[]}", "stability.candidates: list should have at least 1 item"),
        ("stability={candidates=['0it'],points=2}", "stability.points: input should be greater than or equal to 3"),
        ("training.schedule=linear", 'unknown schedule "linear"'),
        ("training.schedule=step", 'milestones, such as ["20000it", "25000it"], go with schedule = "step"'),
        ("training.warmup=5", "training.warmup: should be a length"),
        ("data.mean=[0.5]", 'mean and std go together, with scale = "standard"'),
        ("training=5", "training: should be a section, [training], not 5"),
    ],
)
def test_every_mistake_is_named_in_one_line(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe("digits", [override])
    assert message in str(caught.value)
    assert str(caught.value).startswith("digits: ")
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(InputError, match=r"training\.lr: .*; .*search\.rate"):
        load_recipe("digits", ["training.lr=0", "search.rate=2.0"])


def test_a_value_can_be_taken_away() -> None:
    recipe = load_recipe("digits", ["search.rate=", "search.output_rate=", "search.density=0.1", "rewind="])
    assert recipe.search.density == 0.1
    recipe = load_recipe("digits", ["search.output_rate=", "search.scope=global", 'search.leave_out=["output"]'])
    assert recipe.search.scope_of(LAYERS).groups == (("fc1.weight", "fc2.weight"),)


def test_layers_with_dots_in_their_names_are_quoted() -> None:
    assert load_recipe("digits", ['search.rates."features.0"=0.5']).search.rates == {"features.0": 0.5}


@pytest.mark.parametrize("override", ["training.lr", "=1", "a..b=1", "name.first=1", "a b=1", "#=1", "a\nb=1"])
def test_an_override_of_the_wrong_form_is_named(override: str) -> None:
    with pytest.raises(InputError, match=r"--set"):
        load_recipe("digits", [override])


def test_a_missing_value_is_named() -> None:
    table: dict[str, Any] = {name: part for name, part in TINY.items() if name != "model"}
    with pytest.raises(InputError, match='tiny: "model" is missing'):
        parse_recipe(table, "tiny")


def test_unknown_recipes_get_the_nearest_name() -> None:
    with pytest.raises(InputError, match='unknown recipe "lenet-minst": did you mean "lenet-mnist"'):
        load_recipe("lenet-minst")


def test_files_that_are_no_recipes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml cannot be read: No such file"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("name = [")
    with pytest.raises(InputError, match=r"bad\.toml is not valid TOML"):
        load_recipe(str(tmp_path / "bad.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"not UTF-8"):
        load_recipe(str(tmp_path / "binary.toml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search__leave_out": ["fc3"]}, 'search.leave_out: unknown layer "fc3": did you mean "fc2"?'),
        ({"search__rates": {"outptu": 0.1}}, 'search.rates: unknown layer "outptu": did you mean "output"?'),
        ({"search__leave_out": ["*"]}, "every layer is left out"),
    ],
)
def test_layers_are_known_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        tiny(**changes).search.scope_of(LAYERS)
    assert message in str(caught.value)


def test_a_control_is_a_number_of_draws_or_says_at_which_levels() -> None:
    recipe = load_recipe(
        "digits", ["controls.random.levels=[2, 5]", "controls.random.draws=3", "controls.one_shot=1"]
    )
    assert recipe.controls["random"] == ControlSection(draws=3, levels=[2, 5])
    assert recipe.resolved()["controls"] == {
        "reinit": 1,
        "random": {"draws": 3, "levels": [2, 5]},
        "one_shot": 1,
    }
    assert parse_recipe(recipe.resolved(), "again") == recipe
