"""Plans of any content: their program and the work of its kernels, or None."""

from __future__ import annotations

from fuzz.hunt import effort, hunt, nearly_bytes
from hypothesis import strategies as st

from evodeploy.inspection.listing import kernels_of
from evodeploy.inspection.program import counted, texts_of
from evodeploy.inspection.roofline.work import work_of

PARTS = [
    b"\n  accelerators={", b"sm89 ", b"}", b"*", b"\nmain {", b"\n", b" label ", b"\n label bb1: \n", b"\n}", b"\0\xff",
    b"\n  function={ name=", b'\n  runtime_fusion={ name="x"', b" backbone=gemm", b"_gemm_mha", b'"',
    b"\n  copy={ name=a ", b"\nshape_main {\n label b\n", b'\n  tensor={ name="a" dims={ ', b'"a" ', b"7 ",
    b"type=half }", b' input={ "a" }', b' output={"a" }', b'\n  mul={ name="m"', b' src="3i64"',
    b'\n  memset={ name="n"', b"}",
]  # fmt: skip
PLAN = b'\n  accelerators={sm89 }\n}\ndescriptors {\n  tensor={ dims={ "n" 3 } name="a" type=half }\n}'
PLAN += b"\nmain {\n label a\n  function={ name=a }\n  copy={ name=b }\n label b\n}\n"
PLAN += b'\nshape_main {\n label c\n  mul={ name="m" output={"n" } input={"g" "g" } }\n}\n'


@effort
def test_programs(seconds):
    def check(case):
        data, profiles = case
        for texts in texts_of(data, profiles):
            program = counted(texts)
            assert program is None or 0 < program.total <= len(data)
            assert all(work_of(kernel).moved >= 0 for kernel in kernels_of(texts, 8))

    plans = st.lists(st.sampled_from(PARTS) | st.binary(max_size=4), max_size=40).map(b"".join) | nearly_bytes(PLAN)
    hunt(st.tuples(plans, st.integers(1, 3)), check, seconds)
