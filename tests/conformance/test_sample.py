"""A sample of the ONNX cases in both columns; `benchmarks/conformance.py --check` runs all of them."""

from __future__ import annotations

import pytest

from conformance.columns import run_case
from conformance.onnx_cases import OnnxCase, load_cases
from conformance.onnx_page import LEAST, PAGE, RECORD
from conformance.outcomes import COLUMNS, Column

SAMPLE = {
    "add": ("test_add_bcast",),
    "argmax": ("test_argmax_negative_axis_keepdims_random",),
    "cast": ("test_cast_FLOAT_to_FLOAT16",),
    "clip": ("test_clip_example",),
    "concat": ("test_concat_2d_axis_1",),
    "cumsum": ("test_cumsum_2d_axis_1",),
    "equal": ("test_equal_bcast",),
    "erf": ("test_erf",),
    "expand": ("test_expand_dim_changed",),
    "gather": ("test_gather_negative_indices",),
    "gatherelements": ("test_gather_elements_1",),
    "gathernd": ("test_gathernd_example_float32",),
    "gelu": ("test_gelu_tanh_1", "test_gelu_tanh_1_expanded"),
    "gemm": ("test_gemm_all_attributes",),
    "isinf": ("test_isinf_positive",),
    "layernormalization": ("test_layer_normalization_3d_axis1_epsilon",),
    "logsoftmax": ("test_logsoftmax_axis_0",),
    "matmul": ("test_matmul_3d",),
    "pad": ("test_constant_pad", "test_reflect_pad"),
    "pow": ("test_pow_bcast_array",),
    "rangeop": ("test_range_float_type_positive_delta",),
    "reducemean": ("test_reduce_mean_negative_axes_keepdims_random",),
    "reshape": ("test_reshape_negative_dim",),
    "rmsnormalization": ("test_rms_normalization_4d_axis2",),
    "rotaryembedding": ("test_rotary_embedding",),
    "scatterelements": ("test_scatter_elements_with_negative_indices",),
    "sigmoid": ("test_sigmoid",),
    "slice": ("test_slice_neg_steps",),
    "softmax": ("test_softmax_axis_1",),
    "split": ("test_split_equal_parts_2d",),
    "tile": ("test_tile",),
    "topk": ("test_top_k",),
    "transpose": ("test_transpose_all_permutations_4",),
    "where": ("test_where_example",),
}
"""Cases by the module of `onnx.backend.test.case.node` that has them."""


@pytest.fixture(scope="module")
def cases() -> dict[str, OnnxCase]:
    return {case.name: case for case in load_cases(tuple(SAMPLE))}


@pytest.mark.conformance
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", [name for names in SAMPLE.values() for name in names])
def test_case(cases: dict[str, OnnxCase], name: str, column: Column) -> None:
    outcome = run_case(cases[name], column)
    assert outcome.status == "passed", f"{outcome.reason}: {outcome.detail}"


def test_the_page_is_of_the_record_and_enough_has_passed() -> None:
    recorded = [line.split("\t") for line in RECORD.read_text(encoding="utf-8").splitlines()]
    assert len(recorded) == 1884
    text = PAGE.read_text(encoding="utf-8")
    for number, column in enumerate(COLUMNS, 1):
        statuses = [line[number].split(":")[0] for line in recorded]
        passed, refused, failed = (statuses.count(status) for status in ("passed", "refused", "failed"))
        assert passed > LEAST[column]
        assert f"| {column} | 1884 | {passed} | {refused} | {failed} |" in text
