"""Declarations and Triton configurations: the shipped files are the generated ones, and nothing else gets in."""

from pathlib import Path

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]  # publishes no types
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from contracts.declaration import Declaration, Tensor, declaration_of, read_declaration
from contracts.errors import ModelRefused
from contracts.model_config import configurations, labels_file
from contracts.tensors import HEAD_CT_LESION, MODELS, ModelSpec, TensorSpec
from launch.models_repository import checked_version, served_versions
from training.serving import triton_backend_text

REPOSITORY = Path(__file__).parents[2] / "triton_models"
PLAIN = st.text(st.characters(exclude_characters='"\\', exclude_categories=("C", "Zl", "Zp")), max_size=20)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_shipped_configurations_are_what_the_specs_generate(name: str) -> None:
    """Golden: both files, labels.txt and the backend are the text that the version's declaration gives."""
    model = REPOSITORY / name
    served = served_versions(model)
    assert set(served) == {"GPU", "CPU"}
    assert len(set(served.values())) == 1
    number = served["CPU"]
    declared = checked_version(model / str(number))
    for file, text in configurations(declared, number).items():
        assert (model / file).read_text("utf-8") == text
    if declared.labels:
        assert (model / "labels.txt").read_text("utf-8") == labels_file(declared)
    assert (model / str(number) / "model.py").read_text("utf-8") == triton_backend_text()


@pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))
def test_the_shipped_declarations_are_the_contracts(spec: ModelSpec) -> None:
    """Tensors and labels of contracts/tensors.py, in their order."""
    model = REPOSITORY / spec.name
    declared = checked_version(model / str(served_versions(model)["CPU"]))
    wanted = declaration_of(spec, {}, {})
    assert (declared.inputs, declared.outputs, declared.labels) == (wanted.inputs, wanted.outputs, wanted.labels)


def test_the_generated_text_is_a_configuration_to_triton() -> None:
    """Parsed as Triton parses it: tensors, priorities, the version, the parameters."""
    declared = declaration_of(HEAD_CT_LESION, {"threshold.any": "0.5"}, {})
    for text in configurations(declared, 3).values():
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert list(config.version_policy.specific.versions) == [3]
        assert [tensor.name for tensor in config.input] == ["HU", "PIXEL_SPACING"]
        assert config.output[0].label_filename == "labels.txt"
        assert config.dynamic_batching.priority_levels == 2
        assert config.parameters["threshold.any"].string_value == "0.5"


def test_a_model_without_a_batch_axis_is_not_batched() -> None:
    """max_batch_size 0, and no dynamic batching that Triton would refuse."""
    one = Tensor(TensorSpec("X", "FP32", (1, 3)))
    for text in configurations(Declaration("plain", (one,), (one,), batched=False), 1).values():
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert config.max_batch_size == 0
        assert not config.HasField("dynamic_batching")


@given(
    labels=st.lists(PLAIN, max_size=4),
    parameters=st.dictionaries(PLAIN, PLAIN, max_size=4),
    dims=st.lists(st.one_of(st.just(-1), st.integers(1, 512)), min_size=1, max_size=4),
    window=st.none() | st.tuples(st.floats(-1000, 0), st.floats(1, 3000)),
)
def test_a_declaration_reads_back_as_it_was_written(
    labels: list[str], parameters: dict[str, str], dims: list[int], window: tuple[float, float] | None
) -> None:
    """Whatever plain words it holds."""
    one = Tensor(TensorSpec("VOLUME", "FP32", tuple(dims)), (1.0, 0.5), window, (-1.0, 1.0))
    written = Declaration("model_1", (one,), (one,), tuple(labels), parameters, {"licence": "MIT"})
    assert read_declaration(written.text(), "here") == written


GOOD = """
name = "given"
[[inputs]]
name = "X"
datatype = "FP32"
dims = [1]
[[outputs]]
name = "Y"
datatype = "FP32"
dims = [1]
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD.replace("given", "../escape"), "name"),
        (GOOD.replace('"X"', "'X\" data_type: TYPE_STRING'"), "tensor name"),
        (GOOD.replace("FP32", "FP8"), "FP8"),
        (GOOD.replace("[1]", "[0]"), "dims"),
        (GOOD + "spacing_mm = [0.0]", "spacing_mm"),
        (GOOD + "window_hu = [5.0, 5.0]", "window_hu"),
        (GOOD + "secret = 1", "secret"),
        (GOOD + "[parameters]\nkey = 'a\" } }'", "parameters"),
        (GOOD.split("[[outputs]]", maxsplit=1)[0], "outputs"),
        ("name = ", "not understood"),
    ],
    ids=["path", "injection", "type", "size", "spacing", "window", "unknown", "value", "no output", "no TOML"],
)
def test_a_declaration_that_could_do_harm_or_says_nothing_is_refused(text: str, told: str) -> None:
    """It names the file and what is wrong; nothing of it reaches a configuration."""
    with pytest.raises(ModelRefused, match=r"bad\.toml") as refused:
        read_declaration(text, "bad.toml")
    assert told in str(refused.value)
