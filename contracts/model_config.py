"""The two Triton configurations of a model, written from its tensor specs. Pure: the shipped files equal this text.

`config.pbtxt` is for GPUs (the TensorRT plan), `configs/cpu.pbtxt` runs the same graph with ONNX Runtime in Triton's
Python backend (decision 0004). Both name the version that is served and carry that version's labels and operating
points, so a promotion changes model and thresholds in one step.
"""

from contracts.declaration import Declaration
from contracts.tensors import TensorSpec

MAX_BATCH = 16
GPU_FILE, CPU_FILE = "config.pbtxt", "configs/cpu.pbtxt"
MARK = "# generated: triage models promote writes it again from the version's model.toml"

_GPU_HEAD = """\
# GPU: the TensorRT plan that `triage models plan` builds from the version's model.onnx on the GPU it will run on.
# Preprocessing is inside the graph: what the inputs say goes in as it is.
name: "{name}"
platform: "tensorrt_plan"
default_model_filename: "model.plan"
"""
_CPU_HEAD = """\
# CPU: the same graph in ONNX Runtime, in Triton's Python backend (model.py). Chosen with --model-config-name cpu.
name: "{name}"
backend: "python"
"""
_PRIORITIES = """\
  priority_levels: 2          # 1: the stat lane, 2: routine
  default_priority_level: 2
}
"""
_GPU_TAIL = f"""\
instance_group [ {{ count: 2 kind: KIND_GPU }} ]
dynamic_batching {{
  preferred_batch_size: [ 8, 16 ]
  max_queue_delay_microseconds: 2000
{_PRIORITIES}"""
_CPU_TAIL = f"""\
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{
  max_queue_delay_microseconds: 0
{_PRIORITIES}"""
_LABELLED = "PROBABILITIES"  # Triton can name the entries of this output: labels.txt


def configurations(declared: Declaration, version: int) -> dict[str, str]:
    """File name within the model's folder → text, for a model that serves that version alone."""
    return {
        GPU_FILE: _text(declared, version, _GPU_HEAD, _GPU_TAIL),
        CPU_FILE: _text(declared, version, _CPU_HEAD, _CPU_TAIL),
    }


def labels_file(declared: Declaration) -> str:
    """What labels.txt holds; empty for a model without labels."""
    return "".join(f"{label}\n" for label in declared.labels)


def _text(declared: Declaration, version: int, head: str, tail: str) -> str:
    batch = MAX_BATCH if declared.batched else 0
    ends = (
        tail if declared.batched else tail.split("dynamic_batching", maxsplit=1)[0]
    )  # no batch axis, nothing to batch
    entries = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in declared.parameters.items()
    )
    return (
        f"{head.format(name=declared.name)}max_batch_size: {batch}\n"
        f"version_policy {{ specific {{ versions: [ {version} ] }} }}\n"
        f"{_tensors('input', [tensor.spec for tensor in declared.inputs], labelled=False)}"
        f"{_tensors('output', [tensor.spec for tensor in declared.outputs], labelled=bool(declared.labels))}"
        f"{ends}{MARK}\n{entries}"
    )


def _tensors(kind: str, specs: list[TensorSpec], *, labelled: bool) -> str:
    lines = []
    for spec in specs:
        dims = ", ".join(str(size) for size in spec.dims)
        named = ' label_filename: "labels.txt"' if labelled and spec.name == _LABELLED else ""
        lines.append(f'  {{ name: "{spec.name}" data_type: TYPE_{spec.datatype} dims: [ {dims} ]{named} }}')
    return f"{kind} [\n" + ",\n".join(lines) + "\n]\n"
