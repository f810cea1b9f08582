"""The tables of layers in docs/how-to/your-own.md: what is pruned, by which structures, and what is not."""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from tests.support.errors import raises_input_error
from tombola import prunable, prune
from tombola.pruning.layers import display_name
from tombola.pruning.prunable_layers import find_layers, unprunable
from tombola.pruning.structures import Heads

PAGE = (Path(__file__).parents[2] / "docs/how-to/your-own.md").read_text(encoding="utf-8")

WIDTH = 16


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the rows of the first table under the heading."""
    section = PAGE.split(f"\n### {heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.M)
    assert lines
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def assert_described(names: Sequence[str], patterns: Sequence[str]) -> None:
    """Each name matches a pattern, and each pattern a name."""
    assert [name for name in names if not matches(name, patterns)] == []
    assert [pattern for pattern in patterns if not fnmatch.filter(names, pattern)] == []


def matrices(module: nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.dim() > 1]


# Layers of torch.nn

ARGUMENTS: dict[str, Callable[[], Any]] = {
    "kernel_size": lambda: 2,
    "num_heads": lambda: 2,
    "nhead": lambda: 2,
    "num_layers": lambda: 1,
    "num_encoder_layers": lambda: 1,
    "num_decoder_layers": lambda: 1,
    "dim_feedforward": lambda: WIDTH,
    "d_model": lambda: WIDTH,
    "n_classes": lambda: 15,
    "cutoffs": lambda: [7],
    "normalized_shape": lambda: [8, 8],
    "output_size": lambda: 2,
    "unflattened_size": lambda: (4, 4),
    "encoder_layer": lambda: nn.TransformerEncoderLayer(WIDTH, 2, WIDTH),
    "decoder_layer": lambda: nn.TransformerDecoderLayer(WIDTH, 2, WIDTH),
}
"""Arguments of classes of torch.nn by name; other arguments without a default are 16."""

OPTIONS = {"proj_size": 4, "kdim": 8, "vdim": 12, "add_bias_kv": True}


def construct(name: str, options: Iterable[str] = ()) -> nn.Module:
    cls = getattr(nn, name)
    signature = inspect.signature(nn.RNNBase if issubclass(cls, nn.RNNBase) else cls)
    required = {
        n: ARGUMENTS.get(n, lambda: WIDTH)()
        for n, parameter in signature.parameters.items()
        if n in ARGUMENTS
        or (parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD)
    }
    required.pop("mode", None)  # of RNNBase
    made: nn.Module = cls(**required, **{option: OPTIONS[option] for option in options})
    return made


class Other(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(shape))


def hugging_face_conv1d() -> nn.Module:
    made: nn.Module = importlib.import_module("transformers.pytorch_utils").Conv1D(WIDTH, WIDTH)
    return made


OTHERS: dict[str, list[Callable[[], nn.Module]]] = {
    "`Conv1D` of Hugging Face": [hugging_face_conv1d],
    "other modules: parameters of 3 dimensions, such as stacked experts": [lambda: Other(2, 8, 8)],
    "other modules: parameters of 2, or more than 3 dimensions": [lambda: Other(8, 8), lambda: Other(8, 4, 4, 4)],
    "other modules: parameters of 3 dimensions, one of which is 1": [lambda: Other(1, 8, 8), lambda: Other(8, 8, 1)],
}
"""Rows of what are no classes of torch.nn."""

LAYERS = rows_of("Layers of torch.nn")


def classes_and_options(cell: str) -> tuple[list[str], list[str]]:
    classes, _, options = cell.partition(" with ")
    return codes(classes), codes(options)


CASES: list[Any] = []
for _row in LAYERS:
    if _row[0] in OTHERS:
        CASES += [pytest.param(make, _row, id=f"{_row[0]}-{i}") for i, make in enumerate(OTHERS[_row[0]])]
        continue
    _classes, _options = classes_and_options(_row[0])
    for _name in _classes:
        if hasattr(nn, _name):  # LinearCrossEntropyLoss is new
            CASES.append(
                pytest.param(
                    lambda name=_name, options=_options: construct(name, options),
                    _row,
                    id=" ".join([_name, *_options]),
                )
            )


@pytest.fixture(autouse=True)
def _random_weights() -> None:
    torch.manual_seed(0)


@pytest.mark.filterwarnings("ignore")  # some classes are deprecated
def test_every_class_of_torch_nn_with_a_matrix_is_in_the_table() -> None:
    listed = [name for row in LAYERS if row[0] not in OTHERS for name in classes_and_options(row[0])[0]]
    found = set()
    for name, cls in vars(nn).items():
        if isinstance(cls, type) and issubclass(cls, nn.Module) and not name.endswith("Base"):
            counterpart = getattr(cls, "cls_to_become", None)  # of a lazy class
            if matrices(construct(name if counterpart is None else counterpart.__name__)):
                found.add(name)
    assert found == {name for name in listed if hasattr(nn, name)}
    assert {row[0] for row in LAYERS} >= OTHERS.keys()


def first_batch(name: str) -> Tensor:
    sides = [4] * int(name[-2]) if name.endswith("d") else []
    return torch.randn(2, WIDTH, *sides)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(("make", "row"), CASES)
def test_a_layer_is_pruned_as_its_row_says(make: Callable[[], nn.Module], row: list[str]) -> None:
    layer = make()
    if isinstance(layer, LazyModuleMixin):
        with raises_input_error("no shape yet"):
            prune(layer, 0.5)
        layer(first_batch(type(layer).__name__))
    _, pruned, not_pruned, n_of_m = row
    assert_described(prunable(layer), codes(pruned))
    others = [name for name in matrices(layer) if name not in prunable(layer)]
    assert set(others) == set(codes(not_pruned)) & dict(layer.named_parameters()).keys()
    assert bool(others) == bool(not_pruned)
    assert prunable(layer, include=others) == matrices(layer)
    included = [] if codes(pruned) else others
    assert_pruned(layer, included, "weights", "yes")
    assert_pruned(layer, included, "blocks:4x4", "yes")
    assert_pruned(layer, included, "2:4", n_of_m)


def assert_pruned(layer: nn.Module, include: Sequence[str], structure: str, cell: str) -> None:
    network = nn.ModuleDict({"layer": layer, "linear": nn.Linear(4, 4)})
    named = [f"layer.{name}" for name in include]
    layers = [each for each in find_layers(network, named) if each.parameter.startswith("layer.")]
    if cell == "refused":
        with raises_input_error(f"structure: {structure} does not support layer", "leave_out"):
            prune(network, structure=structure, include=named)
        return
    density = None if structure == "2:4" else 0.5
    mask = prune(network, density, structure=structure, score="random", include=named)
    assert cell == "yes"
    assert all(mask.counts[each.name] == mask.sizes[each.name] // 2 for each in layers)


# Models of Hugging Face

SMALL: dict[str, Any] = {
    "vocab_size": 24,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
DECODER = SMALL | {"num_key_value_heads": 2, "head_dim": 8}
BOTH = SMALL | {
    f"{side}_{part}": size
    for side in ("encoder", "decoder")
    for part, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))
}
SPEECH = SMALL | {
    "conv_dim": (16, 16),
    "conv_stride": (2, 2),
    "conv_kernel": (3, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embedding_groups": 2,
    "num_conv_pos_embeddings": 4,
}
IMAGES = SMALL | {"image_size": 8, "patch_size": 4}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("GPT2LMHeadModel", SMALL | {"n_inner": 16, "n_positions": 16}),
    "BERT": ("BertForSequenceClassification", SMALL),
    "RoBERTa": ("RobertaForSequenceClassification", SMALL),
    "ELECTRA": ("ElectraForSequenceClassification", SMALL | {"embedding_size": 16}),
    "DistilBERT": ("DistilBertForSequenceClassification", SMALL | {"hidden_dim": 16}),
    "Llama": ("LlamaForCausalLM", DECODER),
    "Mistral": ("MistralForCausalLM", DECODER),
    "Qwen2": ("Qwen2ForCausalLM", DECODER),
    "Qwen3": ("Qwen3ForCausalLM", DECODER),
    "Gemma": ("GemmaForCausalLM", DECODER),
    "GPT-NeoX": ("GPTNeoXForCausalLM", SMALL),
    "BLOOM": ("BloomForCausalLM", SMALL),
    "Mixtral": ("MixtralForCausalLM", DECODER | {"num_local_experts": 3}),
    "Qwen3-MoE": ("Qwen3MoeForCausalLM", DECODER | {"num_experts": 3, "moe_intermediate_size": 16}),
    "gpt-oss": ("GptOssForCausalLM", DECODER | {"num_local_experts": 3}),
    "Mamba": ("MambaForCausalLM", SMALL | {"state_size": 4, "time_step_rank": 4}),
    "T5": ("T5ForConditionalGeneration", SMALL | {"d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}),
    "BART": ("BartForConditionalGeneration", BOTH),
    "Whisper": ("WhisperForConditionalGeneration", BOTH | {"num_mel_bins": 16}),
    "Wav2Vec2": ("Wav2Vec2ForCTC", SPEECH),
    "HuBERT": ("HubertForCTC", SPEECH),
    "ViT": ("ViTForImageClassification", IMAGES),
    "DINOv2": ("Dinov2ForImageClassification", IMAGES),
    "Swin": (
        "SwinForImageClassification",
        {"image_size": 16, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2},
    ),
    "ResNet": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"},
    ),
    "ConvNeXt": (
        "ConvNextForImageClassification",
        {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2},
    ),
    "CLIP": ("CLIPModel", {"text_config": SMALL, "vision_config": IMAGES, "projection_dim": 8}),
}
"""By name: the class, and options of a small one."""

MODEL_ROWS = [
    (name, row) for row in rows_of("Models of Hugging Face") for name in re.sub(r" \(.*\)", "", row[0]).split(", ")
]


def build(name: str) -> nn.Module:
    transformers = pytest.importorskip("transformers", minversion="5.0", reason="names are those of transformers 5")
    cls = getattr(transformers, MODELS[name][0])
    model: nn.Module = cls(cls.config_class(**MODELS[name][1]))
    return model


def test_every_model_of_the_test_is_in_the_table() -> None:
    assert [name for name, _ in MODEL_ROWS] == list(MODELS)


@pytest.mark.parametrize(("name", "row"), MODEL_ROWS)
def test_a_model_is_pruned_as_its_row_says(name: str, row: list[str]) -> None:
    model = build(name)
    _, pruned, not_pruned, heads, dense = row
    refused = list(unprunable(model))
    if refused:
        assert "has to be left out" in not_pruned
        with raises_input_error("leave_out"):
            prune(model, 0.5)
    named = [display_name(each) for each in prunable(model, leave_out=refused)]
    experts = [label for label in named if ".experts." in label]
    assert bool(experts) == ("the experts" in pruned)
    assert_described([label for label in named if label not in experts], codes(pruned))
    others = [display_name(each) for each in matrices(model) if display_name(each) not in named]
    assert_described([label.partition(".parametrizations")[0] for label in others], codes(not_pruned))
    if not refused and others:
        assert set(prunable(model, include=codes(not_pruned))) == set(matrices(model))
    assert_heads(name, heads, refused)
    assert_n_of_m(name, codes(dense), refused)


def assert_heads(name: str, cell: str, refused: list[str]) -> None:
    if not cell or cell.startswith("no"):
        return
    inside = [f"*.{part}" for part in codes(cell)]
    query, key, value, output = inside
    described = Heads(2, query=query, key=key, value=value, output=output)
    mask = prune(build(name), 0.5, structure=described, leave_out=refused)
    for layer, size in mask.sizes.items():
        assert mask.counts[layer] == (size // 2 if matches(display_name(layer), inside) else size), layer


def assert_n_of_m(name: str, dense: list[str], refused: list[str]) -> None:
    if dense:
        with raises_input_error("structure: 2:4", "leave_out"):
            prune(build(name), structure="2:4", leave_out=refused)
    mask = prune(build(name), structure="2:4", leave_out=[*refused, *dense])
    for layer, size in mask.sizes.items():
        assert mask.counts[layer] == (size if matches(display_name(layer), dense) else size // 2), layer


def test_heads_that_share_keys_are_refused() -> None:
    transformers = pytest.importorskip("transformers", minversion="5.0")
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER | {"num_key_value_heads": 1}))
    described = Heads(2, query="*.q_proj", key="*.k_proj", value="*.v_proj", output="*.o_proj")
    with raises_input_error("share keys"):
        prune(model, 0.5, structure=described)
