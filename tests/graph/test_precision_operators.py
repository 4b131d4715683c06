"""Every operator that our exports use, and those of token merging, converted to FP16 and BF16."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.errors import UsageError
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.onnx_files import write_onnx

WEIGHTS = "float[1, 8] w = {0.5, -1, 2, 0.25, 1, -0.5, 0.75, 1.5}"

# The body of a graph from x (batch, 4, 8) and the weight w (1, 8) to y.
BODIES = {
    "Cast of a condition": "z = Mul(x, w) m = Greater(z, w) y = Cast<to = 1>(m)",
    "Cast of a condition, then a product": "m = Greater(x, w) c = Cast<to = 1>(m) y = Mul(c, w)",
    "CastLike": "z = Mul(x, w) m = Greater(z, w) c = CastLike(m, x) y = Add(c, z)",
    "Where": "z = Mul(x, w) m = Greater(z, w) y = Where(m, z, w)",
    "a Constant number": "c = Constant<value_float = 1.5>() z = Mul(x, w) y = Add(z, c)",
    "ConstantOfShape": "s = Shape(x) c = ConstantOfShape(s) z = Mul(x, w) y = Add(z, c)",
    "ConstantOfShape of ones": "s = Shape(x) c = ConstantOfShape<value = float[1] {1.0}>(s) y = Mul(c, w)",
    "Range": """
        a = Constant<value_float = 0.0>() b = Constant<value_float = 8.0>() d = Constant<value_float = 1.0>()
        r = Range(a, b, d) z = Add(x, r) y = Mul(z, w)
    """,
    "Expand": "s = Shape(x) e = Expand(w, s) y = Add(e, x)",
    "Equal and ArgMax": """
        z = Mul(x, w) o = ArgMax<axis = -1, keepdims = 1>(z) r = Constant<value_ints = [0, 1, 2, 3, 4, 5, 6, 7]>()
        m = Equal(o, r) c = Cast<to = 1>(m) y = Mul(c, w)
    """,
    "OneHot": """
        z = Mul(x, w) o = ArgMax<axis = -1, keepdims = 0>(z) d = Constant<value_int = 8>()
        v = Constant<value_floats = [0.0, 1.0]>() h = OneHot<axis = -1>(o, d, v) y = Mul(h, z)
    """,
    "ScatterElements": """
        z = Mul(x, w) v, i = TopK<axis = 1>(z, four) y = ScatterElements<axis = 1>(z, i, v)
    """,
    "ScatterElements with addition": """
        z = Mul(x, w) v, i = TopK<axis = 1>(x, four) y = ScatterElements<axis = 1, reduction = "add">(z, i, z)
    """,
    "ScatterND with addition": """
        z = Mul(x, w) u = Gather<axis = 0>(z, zero) y = ScatterND<reduction = "add">(z, first, u)
    """,
    "TopK": "z = Mul(x, w) v, i = TopK<axis = -1>(z, four) c = Cast<to = 1>(i) y = Add(v, c)",
    "GatherElements": "z = Mul(x, w) v, i = TopK<axis = -1>(x, four) y = GatherElements<axis = -1>(z, i)",
    "Softmax and ReduceMean": """
        z = Mul(x, w) s = Softmax<axis = -1>(z) m = ReduceMean(s, last) y = Sub(z, m)
    """,
    "LayerNormalization, its mean an output": "y, m = LayerNormalization(x, w) n = Mul(m, w)",
    "ReduceL2 with a floor below FP16's smallest": """
        z = Mul(x, w) n = ReduceL2(z, last) f = Constant<value_float = 1e-12>() l = Max(n, f) y = Div(z, l)
    """,
    "a product with infinity": """
        z = Mul(x, w) h = Constant<value_float = 0.6>() m = Greater(w, h) f = Constant<value_float = -inf>()
        l = Where(m, z, f)
        s = Softmax<axis = -1>(l) y = Mul(s, w)
    """,
}

# Two stages of merging, the same as in a network: the fast tokens are added to the slow token most like them, and the
# keys of the second attention are weighted by the number of tokens that each represents.
MERGING = """
    q = MatMul(x, square) xt = Transpose<perm = [0, 2, 1]>(x) z = MatMul(q, xt) a = Softmax<axis = -1>(z)
    c = ReduceSum<keepdims = 0>(a, one)
    v, i = TopK<axis = 1>(c, four) j = Unsqueeze(i, last) shape = Shape(x) k = Expand(j, shape)
    t = GatherElements<axis = 1>(x, k) slow = Slice(t, zero, two, one) fast = Slice(t, two, four, one)
    n = ReduceL2(slow, last) floor = Constant<value_float = 1e-12>() m = Max(n, floor) d = Div(slow, m)
    fn = ReduceL2(fast, last) fm = Max(fn, floor) fd = Div(fast, fm)
    dt = Transpose<perm = [0, 2, 1]>(d) like = MatMul(fd, dt)
    owner = ArgMax<axis = -1, keepdims = 1>(like) places = Constant<value_ints = [0, 1]>() same = Equal(owner, places)
    owns = Cast<to = 1>(same) count = ReduceSum<keepdims = 0>(owns, one) unit = Constant<value_float = 1.0>()
    size = Add(count, unit) sizes = Unsqueeze(size, last) back = Transpose<perm = [0, 2, 1]>(owns)
    brought = MatMul(back, fast) sum = Add(slow, brought) merged = Div(sum, sizes)
    mt = Transpose<perm = [0, 2, 1]>(merged) logits = MatMul(merged, mt) weight = Log(size) key = Unsqueeze(weight, one)
    weighed = Add(logits, key) e = Softmax<axis = -1>(weighed) after = MatMul(e, merged)
    g = ReduceSum<keepdims = 0>(e, one) share = Div(g, size) s, o = TopK<axis = 1>(share, one)
    gained = Sub(after, merged) given = MatMul(owns, gained) moved = Add(fast, given)
    both = Concat<axis = 1>(after, moved) best = Unsqueeze(s, last) h = Mul(both, best) y = Mul(h, w)
"""


def model(body, opset):
    text = f"""
        <ir_version: 10, opset_import: ["" : {opset}]>
        operators (float[batch, 4, 8] x) => (float[batch, columns, rows] y)
        <{WEIGHTS}, int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] four = {{4}},
         int64[1] last = {{-1}}, int64[1, 1] first = {{0}}> {{ {body} }}
    """
    proto = onnx.parser.parse_model(text)
    square = np.random.default_rng(1).standard_normal((8, 8), dtype=np.float32) / 8
    proto.graph.initializer.append(numpy_helper.from_array(square, "square"))
    return proto


def computed(proto, folder, images):
    if any(attribute.name == "reduction" for node in proto.graph.node for attribute in node.attribute):
        return ReferenceEvaluator(proto).run(None, {"x": images})[0]  # ONNX Runtime cannot add FP16 on the CPU
    write_onnx(proto, folder / "m.onnx")
    with OnnxRuntimeEngine(folder / "m.onnx") as engine:
        return engine.run(images)["y"]


def kinds(proto):
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}


@pytest.mark.parametrize("body", [*BODIES.values(), MERGING], ids=[*BODIES, "token merging"])
def test_fp16_is_a_valid_graph_that_computes_the_same(tmp_path, body):
    original = model(body, 20)
    # FP16 holds these numbers exactly, so that no comparison and no order changes.
    images = np.random.default_rng(0).permutation(64).reshape(2, 4, 8).astype(np.float32) / 16 - 2
    expected = computed(original, tmp_path, images)
    got = computed(reduced_from_onnx(original, "fp16").model, tmp_path, images)
    assert got.dtype == np.float32
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("body", [*BODIES.values(), MERGING], ids=[*BODIES, "token merging"])
def test_bf16_is_a_valid_graph(body):
    reduced = reduced_from_onnx(model(body, 22), "bf16").model  # the conversion checks the graph, including types
    assert TensorProto.BFLOAT16 in kinds(reduced).values()
    assert kinds(reduced)["y"] == TensorProto.FLOAT


def test_products_of_merging_run_in_fp16_and_what_selects_in_fp32():
    reduced = reduced_from_onnx(model(MERGING, 20), "fp16")
    types = kinds(reduced.model)
    for node in reduced.model.graph.node:
        if node.op_type == "MatMul":
            assert types[node.output[0]] == TensorProto.FLOAT16, node.output[0]
        if node.op_type == "TopK":
            assert types[node.input[0]] == types[node.output[0]] == TensorProto.FLOAT


def test_a_vector_of_zeros_is_normalised_to_zeros(tmp_path):
    name = "ReduceL2 with a floor below FP16's smallest"
    reduced = reduced_from_onnx(model(BODIES[name], 20), "fp16").model
    assert not computed(reduced, tmp_path, np.zeros((1, 4, 8), np.float32)).any()


def test_subgraphs_are_refused():
    body = """
        z = Mul(x, w) m = ReduceMax<keepdims = 0>(z) c = Greater(m, limit)
        y = If(c) <then_branch = t () => (float[a, b, c] u) { u = Identity(z) },
                   else_branch = e () => (float[a, b, c] q) { q = Neg(z) }>
    """
    proto = model(body, 20)
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0), "limit"))
    with pytest.raises(UsageError, match="subgraphs"):
        reduced_from_onnx(proto, "fp16")


def test_operators_of_others_are_refused():
    proto = model("z = Mul(x, w) y = Identity(z)", 20)
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "FastGelu", "com.microsoft"
    with pytest.raises(UsageError, match=r"has FastGelu of com\.microsoft, which is no operator of ONNX"):
        reduced_from_onnx(proto, "fp16")
