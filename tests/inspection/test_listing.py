from __future__ import annotations

import subprocess
import sys

import pytest

from evodeploy.inspection.listing import Tensor, kernels_of
from evodeploy.inspection.program import texts_of

TENSORS = """
  tensor={ alignment=128 const_payload_size=6 dims={ 1 3 } name="bias" offset=1 region=consts type=half }
  tensor={ alignment=128 dims={ "rows" 3 } name="x" offset=0 region="devmem_0" strides={ 3 1 } type=half }
  tensor={ alignment=128 dims={ "batch" 2 "twice" } name="y" offset=0 region="devmem_1" strides={ 3 1 } type=float }
  tensor={ alignment=128 dims={ 1 } mem_prop=100 name="rows" offset=0 region="system_hmem" type=int64 }
  tensor={ alignment=128 dims={ "unknown" 2 } name="z" offset=0 region="devmem_1" type=float }
  tensor={ alignment=128 dims={ 2 2 } name="odd" offset=0 region="devmem_1" type=a_new_type }
  sub_tensor={ base="x" const_offset=0 dims={ "batch" 5 3 } name="view" strides={ 15 3 1 } type=half }
"""
KERNELS = """
main {
 label bb1:
  shape_call={ name="s" stream=0 }
  function={ name=__myl_Add input_args={ "x" "view" "bias" "rows" } output_args={ "y" } binary=0 }
  fully_connected={ name="node_MatMul" output={"z" } input={"x" } stream=1 }
  function={ name=__myl_New input_args={ "x" } output_args={ "odd" } }
  function={ name=__myl_None input_args={ "nowhere" } output_args={ "y" } }
}
"""
SIZES = """
shape_main {
 label bb2:
  copy={ name="c" output={"b" } input={"given{1}" }  stream=0 }
  memset={ name="m5" output={"five" }  src="5i64" stream=0 }
  memset={ name="m0" output={"none" }  src="0i64" stream=0 }
  mul={ name="r" output={"product" } input={"b" "five" } stream=0 }
  div={ name="d" output={"broken" } input={"b" "none" } stream=0 }
  geq={ name="g" output={"many" } input={"b" "five" } stream=0 }
  select={ name="s" output={"twice" } input={"many" "product" "five" } stream=0 }
  a_new_step={ name="n" output={"unknown" } input={"b" "five" } stream=0 }
  copy={ name="p" output={"rows" } input={"product" } stream=0 }
  copy={ name="q" output={"batch" } input={"b" } stream=0 }
}
"""
PLAN = ("\n  accelerators={sm89 }\n}\ndescriptors {" + TENSORS + "}" + KERNELS + SIZES).encode()


def listed(batch, plan=PLAN):
    return {kernel.name: kernel for kernel in kernels_of(texts_of(plan)[0], batch)}


def test_the_stream_of_each_kernel_is_read():
    assert [kernel.stream for kernel in listed(2).values()] == [0, 1, 0, 0]


@pytest.mark.parametrize(("batch", "twice"), [(2, 5), (7, 35)])
def test_sizes_follow_from_the_batch(batch, twice):
    add = listed(batch)["__myl_Add"]
    assert add.whole
    assert add.reads == (
        Tensor("x at 0", (5 * batch, 3), "half", False),
        Tensor("x at 0", (batch, 5, 3), "half", False),
        Tensor("bias at 0", (1, 3), "half", True),
    )
    assert add.writes == (Tensor("y at 0", (batch, 2, twice), "float", False),)
    assert add.writes[0].nbytes == batch * 2 * twice * 4


def test_kernels_whose_tensors_are_unknown_are_marked():
    found = listed(2)
    assert list(found) == ["__myl_Add", "node_MatMul", "__myl_New", "__myl_None"]
    assert [kernel.name for kernel in found.values() if kernel.whole] == ["__myl_Add"]
    assert found["node_MatMul"].reads and not found["node_MatMul"].writes


def test_a_size_without_a_name_is_unknown():
    assert not listed(2, PLAN.replace(b'"rows" 3', b'"" 3'))["__myl_Add"].whole


def test_two_sizes_that_are_given_are_both_unknown():
    found = listed(
        2, PLAN.replace(b'name="n" output={"unknown" } input={"b"', b'name="n" output={"unknown" } input={"a"')
    )
    assert not found["__myl_Add"].whole


def test_a_plan_without_sizes_has_those_that_are_fixed():
    plan = PLAN.replace(SIZES.encode(), b"").replace(b'"rows" 3', b"4 3").replace(b'"batch" 2 "twice"', b"1 2 3")
    found = listed(1, plan.replace(b'"batch" 5 3', b"4 1 3"))
    assert found["__myl_Add"].whole and found["__myl_Add"].writes[0].shape == (1, 2, 3)


HEAD = "\n  accelerators={sm89 }\n  tensor={ type=half name=a dims={ "
KERNEL = "\nmain {\n label a\n  function={ name=a }\n}\n"
WORST = [
    *(
        (HEAD, unit, KERNEL)
        for unit in ('\n  tensor={ dims={ "a', "11111111 ", "1" * 20, "\n  tensor={ name=a dims={ 1")
    ),
    *(("\nmain {\n label a\n  function={ name=a input_args={ ", unit, "\n}\n") for unit in (' input_args={ "', ' "a"')),
    *(
        (KERNEL + "\nshape_main {\n label b\n  mul={ output={", unit, "\n}\n")
        for unit in (' input={"', '\n  mul={ name="a" output={"b" } input={"b" "b" }')
    ),
]


def test_the_worst_plans_are_listed_in_linear_time():
    """In quadratic time each of these takes minutes; the limit leaves a slow machine its time."""
    code = f"""if True:
        from evodeploy.inspection.listing import kernels_of
        from evodeploy.inspection.program import texts_of
        for begin, unit, end in {WORST!r}:
            print(len(kernels_of(texts_of((begin + unit * 50_000 + end).encode())[0], 8)), end=" ")"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "1 " * len(WORST)
