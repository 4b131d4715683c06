from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import model_of, value
from onnx import TensorProto, helper

from evodeploy.models import selection


def test_top_k_takes_the_largest_in_order():
    values, positions = selection.top_k(torch.tensor([[0.1, 0.9, 0.5, 0.7]]), 3)
    assert positions.tolist() == [[1, 3, 2]]
    assert values.tolist() == [[pytest.approx(0.9), pytest.approx(0.7), pytest.approx(0.5)]]


def test_of_equal_scores_the_lower_position_wins():
    scores = torch.zeros(2, 500)
    scores[1, 250] = 1.0
    _, positions = selection.top_k(scores, 4)
    assert positions.tolist() == [[0, 1, 2, 3], [250, 0, 1, 2]]


def test_top_k_resolves_ties_as_onnx_runtime_does():
    import onnxruntime as ort

    scores = np.random.default_rng(0).integers(0, 6, (64, 196)).astype(np.float32)
    node = helper.make_node("TopK", ["x", "k"], ["values", "positions"])
    described = [value("x", (64, 196))], [value("positions", (64, 98), TensorProto.INT64)]
    model = model_of([node], *described, {"k": np.array([98])})
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": scores})
    _, positions = selection.top_k(torch.from_numpy(scores), 98)
    np.testing.assert_array_equal(positions.numpy(), expected)


def test_the_gradient_of_what_is_kept_goes_where_it_came_from():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.7], [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]], requires_grad=True)
    values, _ = selection.top_k(scores, 2)
    (values * torch.tensor([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])).sum().backward()
    assert scores.grad.tolist() == [[0.0, 3.0, 0.0, 4.0], [5.0, 6.0, 0.0, 0.0], [0.0, 0.0, 8.0, 7.0]]


@pytest.mark.parametrize("scale", [8**-0.5, 1.0, 2.0])
def test_class_attention_is_the_class_row_of_the_softmax(scale):
    generator = torch.Generator().manual_seed(0)
    query, keys = torch.randn(2, 3, 5, 8, generator=generator), torch.randn(2, 3, 5, 8, generator=generator)
    whole = torch.einsum("bhid,bhjd->bhij", query, keys).mul(scale).softmax(-1)
    logits = selection.class_logits(query[:, :, :1], keys, scale)
    torch.testing.assert_close(selection.class_attention(logits), whole[:, :, 0, 1:].sum(1))


def test_blend_keeps_half_at_a_half():
    assert selection.blend(torch.tensor([[2.0, 4.0]]), torch.tensor([[4.0, 0.0]]), 0.5).tolist() == [[3.0, 2.0]]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    "tradeoffs", [[0.5], [1.0], [0.5, 0.5, 0.5], [0.3, 1.0, 0.5], [torch.tensor([0.2]), torch.tensor([0.7])]]
)
def test_all_blocks_blended_at_once_are_the_blocks_blended_in_turn(begun, tradeoffs):
    generator = torch.Generator().manual_seed(1)
    logits = [torch.randn(2, 3, 6, generator=generator, dtype=torch.float64) for _ in tradeoffs]
    expected = scores = torch.rand(2, 5, generator=generator, dtype=torch.float64) if begun else None
    for seen, tradeoff in zip(logits, tradeoffs, strict=True):
        attention = selection.class_attention(seen) / 3
        expected = attention if expected is None else selection.blend(expected, attention, tradeoff)
    torch.testing.assert_close(selection.global_attention(scores, logits, tradeoffs, 1 / 3), expected)


def test_a_token_after_the_scored_ones_takes_part_in_the_softmax_alone():
    logits, scores = torch.randn(2, 3, 7), torch.rand(2, 5)
    got = selection.global_attention(scores, [logits], [0.5])
    torch.testing.assert_close(got, 0.5 * scores + 0.5 * selection.class_attention(logits)[:, :5])


def test_splitting_and_merging_touch_only_the_selected():
    sequence = torch.arange(2 * 6 * 4, dtype=torch.float32).reshape(2, 6, 4)
    positions = torch.tensor([[4, 0], [2, 3]])
    slow, rows = selection.split_tokens(sequence, positions)
    assert rows.tolist() == [[0, 5, 1], [0, 3, 4]]
    torch.testing.assert_close(slow[1], sequence[1, [0, 3, 4]])
    merged = selection.merge_tokens(sequence, slow + 100, rows)
    changed = (merged != sequence).any(-1)
    assert changed.tolist() == [[True, True, False, False, False, True], [True, False, False, True, True, False]]
    torch.testing.assert_close(selection.merge_tokens(sequence, slow, rows), sequence)


def test_gradients_reach_every_token_through_a_split_and_merge():
    sequence = torch.randn(1, 5, 3, requires_grad=True)
    slow, rows = selection.split_tokens(sequence, torch.tensor([[1, 3]]))
    selection.merge_tokens(sequence, slow * 3, rows).sum().backward()
    assert sequence.grad[0, :, 0].tolist() == [3.0, 1.0, 3.0, 1.0, 3.0]


def test_the_representative_token_is_the_average_weighted_by_scores():
    fast = torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[5.0, 1.0], [1.0, 5.0]]])
    scores = torch.tensor([[1.0, 3.0], [1.0, 1.0]])
    assert selection.representative_token(fast, scores).tolist() == [[[2.5, 5.0]], [[3.0, 3.0]]]


def test_taking_tokens_leaves_the_class_token_out():
    sequence = torch.arange(8.0).reshape(1, 4, 2)
    assert selection.take_tokens(sequence, torch.tensor([[2, 0]])).tolist() == [[[6.0, 7.0], [2.0, 3.0]]]
