"""Plans of any content: their program, or None."""

from __future__ import annotations

from fuzz.hunt import effort, hunt, nearly_bytes
from hypothesis import strategies as st

from evodeploy.engines.tensorrt.program import GpuProgram, program_of

PARTS = [
    b"\n  accelerators={", b"sm89 ", b"}", b"*", b"\nmain {", b"\n", b" label ", b"\n label bb1: \n", b"\n}", b"\0\xff",
    b"\n  function={ name=", b'\n  runtime_fusion={ name="x"', b" backbone=gemm", b"_gemm_mha", b'"',
    b"\n  copy={ name=a ",
]  # fmt: skip
PLAN = b"\n  accelerators={sm89 }\nmain {\n label a\n  function={ name=a }\n  copy={ name=b }\n label b\n}\n"


@effort
def test_programs(seconds):
    def check(case):
        data, profiles = case
        program = program_of(data, profiles)
        assert program is None or (isinstance(program, GpuProgram) and 0 < program.total <= len(data))

    plans = st.lists(st.sampled_from(PARTS) | st.binary(max_size=4), max_size=40).map(b"".join) | nearly_bytes(PLAN)
    hunt(st.tuples(plans, st.integers(1, 3)), check, seconds)
