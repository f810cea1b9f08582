from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.errors import raises_input_error
from tests.support.prunable import prunable_network
from tests.support.recipes import TINY
from tombola.experiments.recipe import load_recipe, parse_recipe
from tombola.experiments.recipe_files import opening_comment, recipes
from tombola.experiments.sections import ControlSection
from tombola.pruning.scopes import Globally, Layerwise

LAYERS = {"fc1.weight": (300, 784), "fc2.weight": (100, 300), "output.weight": (10, 100)}


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
    assert recipe.search.options.scope_of(prunable_network(LAYERS)) == Layerwise(
        {"fc2.weight": 0.5, "output.weight": 0.35}
    )
    assert recipe.data.name == "my.npz"
    assert recipe.model.options == {"widths": [5, 5]}
    assert recipe.name == "other"


@pytest.mark.parametrize(
    ("override", "facts"),
    [
        ("trainin.lr=1", ['"trainin"', '"training"?']),
        ("training.speed=1", ["[training]", '"speed"', "batch_size, "]),
        ("training.optimiser=adam", ["[training]", '"optimiser"', '"optimizer"?']),
        ("training.optimizer=adm", ["training.optimizer", '"adm"', '"adam"?']),
        ("training.lr=fast", ["training.lr", "number", "'fast'"]),
        ("training.lr=0", ["training.lr", "greater than 0, not 0"]),
        ("training.lr=nan", ["training.lr", "finite"]),
        ("training.batch_size=1.5", ["training.batch_size", "integer"]),
        ("training.length=10", ["training.length", '"500it", "2ep" or "1ep5it"', "10"]),
        ("training.length=0it", ["length", "1it"]),
        ("training.length=1000000000000it", ["training.length", "1,000,000,000"]),
        ("training.warmup=5", ["training.warmup", '"500it"']),
        ("training.schedule=step", ["milestones", "20000it", "step"]),
        ("training=5", ["[training]", "5"]),
        ("search.level=3", ["[search]", '"level"', '"levels"?']),
        ("search.method=rigel", ["search.method", '"rigel"', '"rigl"?']),
        ("search.density=0.1", ["search", "rate", "density"]),
        ("search.scope=globl", ["search.scope", '"globl"', '"global"?']),
        ("search.scope=global", ["search.output_rate", "scope"]),
        ("search.score=magnitud", ["search.score", '"magnitud"', '"magnitude"?']),
        ("search.structure=neuron", ["search.structure", '"neuron"', '"neurons"?']),
        ("search.structure=2:4", ["search.levels", "1", "2:4", "7"]),
        ("search.levels=-1", ["search.levels", "0", "-1"]),
        ("search.rates.fc1=2.0", ["search.rates", '"fc1"', "less than 1", "2"]),
        ("replicates=1001", ["replicates", "1000", "1001"]),
        ("replicates=0", ["replicates", "1", "0"]),
        ("name=a/b", ["name", "pattern"]),
        ("rewind.to=later", ["rewind.to", '"500it", "2ep" or "1ep5it", or "auto"', "later"]),
        ("rewind.to=auto", ["rewind.to", "[stability]", "rewind.method"]),
        ("verdict.confidence=95", ["verdict.confidence", "0.999", "95"]),
        ("verdict.control=reint", ['"reint"', '"reinit"?']),
        ("controls.renit=1", ['"renit"', '"reinit"?']),
        ("controls.reinit=-1", ["controls.reinit.draws", "0", "-1"]),
        ("controls.reinit={draw=1}", ["[controls.reinit]", '"draw"', '"draws"?']),
        ("controls.reinit=two", ["[controls.reinit]", "'two'"]),
        ("controls.reinit={levels=[9]}", ["controls.reinit", "levels", "7", "9"]),
        ("controls.large_init=2", ["controls.large_init", "0 or 1", "2"]),
        ("data.fraction=0", ["data.fraction", "greater than 0, not 0"]),
        ("data.mean=[0.5]", ["mean", "std", 'scale = "standard"']),
        ("stability={candidates=['0it'],point=5}", ["[stability]", '"point"', '"points"?']),
        ("stability={candidates=[]}", ["stability.candidates", "at least 1"]),
    ],
)
def test_invalid_values_are_named_in_one_line(override: str, facts: list[str]) -> None:
    with raises_input_error("digits: ", *facts):
        load_recipe("digits", [override])


def test_all_errors_are_named_at_once() -> None:
    with raises_input_error("training.lr", "search.rate"):
        load_recipe("digits", ["training.lr=0", "search.rate=2.0"])


def test_an_empty_override_removes_the_key() -> None:
    recipe = load_recipe("digits", ["search.rate=", "search.output_rate=", "search.density=0.1", "rewind="])
    assert recipe.search.density == 0.1
    recipe = load_recipe("digits", ["search.output_rate=", "search.scope=global", 'search.leave_out=["output"]'])
    assert recipe.search.options.scope_of(prunable_network(LAYERS)).groups == (("fc1.weight", "fc2.weight"),)


def test_layers_with_dots_in_their_names_are_quoted() -> None:
    assert load_recipe("digits", ['search.rates."features.0"=0.5']).search.rates == {"features.0": 0.5}


@pytest.mark.parametrize("override", ["training.lr", "=1", "a..b=1", "name.first=1", "a b=1", "#=1", "a\nb=1"])
def test_a_malformed_override_is_refused(override: str) -> None:
    with raises_input_error("--set"):
        load_recipe("digits", [override])


def test_a_missing_section_is_named() -> None:
    table: dict[str, Any] = {name: part for name, part in TINY.items() if name != "model"}
    with raises_input_error("tiny", "model", "missing"):
        parse_recipe(table, "tiny")


def test_for_an_unknown_recipe_the_nearest_name_is_suggested() -> None:
    with raises_input_error('"lenet-minst"', '"lenet-mnist"?'):
        load_recipe("lenet-minst")


def test_files_that_cannot_be_read_as_recipes_are_named(tmp_path: Path) -> None:
    with raises_input_error("none.toml", "No such file"):
        load_recipe(str(tmp_path / "none.toml"))
    for content, reason in ((b"name = [", "TOML"), (b"\xff\xfe", "UTF-8")):
        (tmp_path / "bad.toml").write_bytes(content)
        with raises_input_error("bad.toml", reason):
            load_recipe(str(tmp_path / "bad.toml"))


def test_a_control_is_a_number_of_draws_or_a_section() -> None:
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


def test_recipes_are_valid_and_their_opening_comment_names_their_data() -> None:
    assert set(recipes()) >= {"digits", "digits-noisy-labels", "lenet-mnist", "lenet-mnist-first-release"}
    for name, text in recipes().items():
        assert load_recipe(name).name == name
        assert any(data in opening_comment(text) for data in ("digits", "MNIST", "CIFAR-10", "ImageNet"))


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
def test_convolutional_networks_have_the_paper_settings(name: str, lr: float, length: str, conv: float) -> None:
    """Frankle & Carbin 2019, figure 2 and appendix H."""
    recipe = load_recipe(name)
    options = recipe.training
    assert (options.optimizer, options.lr, options.batch_size, str(options.length)) == ("adam", lr, 60, length)
    assert recipe.model.name == name[:4] + "-" + name[4]
    assert recipe.model.options == ({"dropout": 0.5} if "dropout" in name else {})
    shapes = {"conv1.weight": (64, 3, 3, 3), "fc1.weight": (256, 9), "o.weight": (10, 256)}
    rates = {"conv1.weight": conv, "fc1.weight": 0.2, "o.weight": 0.1}
    assert recipe.search.options.scope_of(prunable_network(shapes)) == Layerwise(rates)
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
def test_deeper_networks_have_the_paper_settings(name: str, lr: float, warmup: str) -> None:
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
    assert recipe.search.options.scope_of(prunable_network(dict.fromkeys(layers, (1,)))) == Globally(
        ("conv1.weight",), 0.2
    )


@pytest.mark.parametrize(("name", "alone"), [("resnet20-cifar10-openlth", []), ("vgg16-cifar10-openlth", ["output"])])
def test_networks_of_open_lth_have_its_settings(name: str, alone: list[str]) -> None:
    """facebookresearch/open_lth, `cifar_resnet_20` and `cifar_vgg_16`."""
    recipe = load_recipe(name)
    options = recipe.training
    assert (options.lr, options.momentum, options.weight_decay, options.batch_size) == (0.1, 0.9, 1e-4, 128)
    assert (str(options.length), [str(m) for m in options.milestones]) == ("160ep", ["80ep", "120ep"])
    assert recipe.model.options == {"init": "kaiming-normal", "norm": "uniform"}
    assert recipe.search.leave_out == alone
    assert str(recipe.rewind.to) == "1000it"


def test_every_large_recipe_has_a_small_one() -> None:
    names = set(recipes())
    for name in names:
        if name.split("-")[0] in {"conv2", "conv4", "conv6", "resnet20", "vgg19", "vgg16", "vit"}:
            kept = {name.split("-")[0], "cifar10", "openlth", "channels", "heads"}
            family = "-".join(part for part in name.split("-") if part in kept)
            assert f"{family}-small" in names


def test_lenet_mnist_has_the_paper_settings() -> None:
    """Frankle & Carbin 2019, figure 2 and appendix G."""
    recipe = load_recipe("lenet-mnist")
    options = recipe.training
    assert (options.optimizer, options.lr, options.batch_size) == ("adam", 1.2e-3, 60)
    assert (str(options.length), str(options.evaluate_every)) == ("50000it", "100it")
    rates = {"fc1.weight": 0.2, "fc2.weight": 0.2, "output.weight": 0.1}
    assert recipe.search.options.scope_of(prunable_network(LAYERS)) == Layerwise(rates)
    assert (recipe.data.validation, recipe.replicates, recipe.search.levels) == (5000, 5, 21)
    assert recipe.controls == {"reinit": ControlSection(draws=3), "one_shot": ControlSection()}
    openlth = load_recipe("lenet-mnist-openlth")
    assert openlth.search.options.scope_of(prunable_network(LAYERS)) == Globally(("fc1.weight", "fc2.weight"), 0.2)


@pytest.mark.parametrize("name", recipes())
def test_former_names_of_verdict_keys_override_recipes_with_any_spelling(name: str) -> None:
    verdict = load_recipe(name, ["verdict.beat=random", "verdict.few=0.3"]).verdict
    assert (verdict.control, verdict.max_density) == ("random", 0.3)


def test_a_verdict_key_with_both_names_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    for keys in ("few = 0.4", "few = 0.4\nmax_density = 0.3"):
        path.write_text(recipes()["digits"].replace("[verdict]", f"[verdict]\n{keys}"))
        if "max_density" not in keys:
            assert load_recipe(str(path)).verdict.max_density == 0.4
            continue
        with raises_input_error("verdict.few", "verdict.max_density"):
            load_recipe(str(path))
