"""The pages of docs/reference/ list what the code has, no less and no more.

Fields of results are compared where a result is made: the tests that call `check_fields`.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import get_args

import pytest
from benchmark.fakes import INFO
from fake_engines import FakeEngine
from fastapi.testclient import TestClient
from reference_pages import check_fields, check_listed, fields_of, listed, names_in, section, tables
from served import Direct

from evodeploy.benchmark.measure.intervals import Interval
from evodeploy.benchmark.report.compare import Change, Comparison
from evodeploy.engines.tensorrt.flavour import load_flavour
from evodeploy.images import MOST_EXIF, MOST_SCANS
from evodeploy.machine import environment
from evodeploy.models import untrained
from evodeploy.serving import arrivals, calls, connections, gate, grpc_server, messages, metrics, openapi, pages
from evodeploy.serving.app import create_app
from evodeploy.serving.backend import KEEP_HEADER
from evodeploy.serving.metrics import Metrics
from evodeploy.serving.protocol import JSON_LENGTH, MOST_LISTS
from evodeploy.serving.settings import Limits
from evodeploy.specs import Precision
from evodeploy.tiff import MOST_NUMBERS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(__file__).parents[1] / "evodeploy"


@pytest.fixture(scope="module")
def app():
    return create_app(lambda: Direct(FakeEngine(INFO)), "fake", Limits(), None, metrics=Metrics())


def properties(schema, name=""):
    """The fields that a JSON schema describes, named as on the pages."""
    if schema["type"] == "array" and "items" in schema:
        yield f"{name}[]"
        yield from properties(schema["items"], f"{name}[]") if schema["items"]["type"] == "object" else ()
        return
    if name and "properties" not in schema:
        yield name
    for key, inner in schema.get("properties", {}).items():
        yield from properties(inner, f"{name}.{key}" if name else key)


def test_routes(app):
    documented = {f"{method.upper()} {path}" for path, each in app.openapi()["paths"].items() for method in each}
    known = documented | {f"GET {path}" for path in pages.PATHS} | {"GET /openapi.json"}
    check_listed("http.md", "Routes", listed("http.md", "Routes"), known)


def test_which_routes_need_the_token_and_take_a_place():
    backend = Direct(FakeEngine(INFO))
    app = create_app(lambda: backend, "fake", Limits(admitted=1), "secret", metrics=Metrics())
    client = TestClient(app)
    for cell, _, token, _ in tables("http.md", "Routes")[0]:
        for method, path in (name.split(" ") for name in names_in(cell)):
            answer = client.request(method, path.format(model="fake", version="1"))
            assert (answer.status_code == 401) == (token == "yes"), (method, path, answer.status_code)
    unlimited = {
        name.split(" ")[1] for row in tables("http.md", "Routes")[0] if row[3] == "no" for name in names_in(row[0])
    }
    gates = [each for each in app.user_middleware if each.cls is gate.Gate]
    assert unlimited == gates[0].kwargs["exempt"] | gates[0].kwargs["unlimited"]


def test_fields_of_requests_and_answers(app):
    described = app.openapi()["paths"]["/v1/predict"]["post"]
    check_listed("http.md", "Predict", listed("http.md", "Predict"), [each["name"] for each in described["parameters"]])
    check_listed("http.md", "Predict", listed("http.md", "Predict", 1), properties(openapi.PREDICTION))
    lists = {"inputs[]", "outputs[]"}
    shown = listed("http.md", "Metadata of the model")
    check_listed("http.md", "Metadata of the model", shown | lists, properties(openapi.METADATA))
    shown = listed("http.md", "Infer") | {"parameters"}
    check_listed("http.md", "Infer", shown, {*properties(openapi.INFERENCE), "parameters"})
    check_listed("http.md", "Infer", listed("http.md", "Infer", 1), properties(openapi.INFERRED))


def test_parameters_of_the_metadata(app):
    parameters = TestClient(app).get("/v2/models/fake").json()["parameters"]
    check_listed("http.md", "Metadata of the model", listed("http.md", "Metadata of the model", 1), parameters)


def test_headers_of_tensors_and_ratios():
    names = {name.lower() for name in listed("http.md", "Headers")}
    assert {JSON_LENGTH, KEEP_HEADER} < names


def test_status_codes():
    """Those that the OpenAPI document and gRPC's table name, and those that the code of the server answers with."""
    known = {200, 405, *openapi.REFUSALS, *grpc_server._CODES, *connections._WORDS}
    for path in (PACKAGE / "serving").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "JSONResponse" and len(node.args) > 1:
                known |= {node.args[1].value} if isinstance(node.args[1], ast.Constant) else set()
    check_listed("http.md", "Status codes", listed("http.md", "Status codes"), map(str, known))


def test_methods_and_codes_of_grpc():
    methods = {name.rpartition("/")[2] for name in calls.METHODS}
    check_listed("http.md", "gRPC", listed("http.md", "gRPC"), methods)
    assert names_in(tables("http.md", "gRPC")[0][0][0]) == sorted(name.rpartition("/")[2] for name in calls.OPEN)
    shown = {name: names_in(row[1]) for row in tables("http.md", "gRPC")[1] for name in names_in(row[0])}
    known = {}
    for status, code in grpc_server._CODES.items():
        known.setdefault(code.name, []).append(str(status))
    assert {name: statuses for name, statuses in shown.items() if statuses} == known


def test_limits_are_the_numbers_of_the_code():
    limits, text = Limits(), section("http.md", "Limits")
    for number in (
        f"{limits.body >> 20} MiB of a body",
        f"{limits.pixels // 1_000_000} million pixels",
        f"{MOST_SCANS} scans of a JPEG, {MOST_EXIF} EXIF blocks",
        f"{MOST_NUMBERS:,} numbers in the tags of a TIFF",
        f"{MOST_LISTS:,} lists and objects",
        f"{limits.admitted} requests in a replica",
        f"{limits.seconds:g} seconds without a byte",
        f"{gate.HEADER_BYTES >> 10} KiB of headers, {connections.SECONDS:g} seconds until",
        f"{gate.BODIES} bodies on their way",
        f"slower than {arrivals.RATE >> 10} KiB a second",
        f"{connections.SECONDS:g} seconds in which a client reads nothing",
        f"{connections.KEEP_ALIVE} seconds without a further request",
        f"{grpc_server.AGE} seconds of a gRPC connection",
    ):
        assert number in text, f"docs/reference/http.md, section 'Limits': the code has '{number}'"
    assert f"more than {messages.MOST_FIELDS:,} fields" in section("http.md", "gRPC")


def test_metrics_of_one_process():
    counted = Metrics()
    counted.answered("POST", 200, 0.1)
    counted.ran(1, 0.1, (0.5,))
    known = set()
    for family in counted._registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        known.add(f"{name} {family.type} {' '.join(sorted(labels))}".strip())
    rows = tables("metrics.md", "One process")[0]
    shown = {f"{names_in(name)[0]} {kind} {' '.join(names_in(labels))}".strip() for name, kind, labels, _ in rows}
    check_listed("metrics.md", "One process", shown, known)


def test_bounds_of_histograms():
    text = section("metrics.md", "One process")
    assert f"| {metrics.SECONDS[0]} s and its doubles up to {metrics.SECONDS[-1]} s |" in text
    assert f"| {', '.join(map(str, metrics.SIZES))} |" in text
    step = metrics.RATIOS[1] - metrics.RATIOS[0]
    assert f"| {metrics.RATIOS[0]} to {metrics.RATIOS[-1]:g} in steps of {step:g} |" in text


def test_metrics_on_ray():
    known = set()

    def made(kind):
        return lambda name, *_: known.add(f"ray_{name} {kind}")

    metrics.counted_runs(made("counter"), made("histogram"))
    rows = tables("metrics.md", "On Ray")[0]
    check_listed("metrics.md", "On Ray", {f"{names_in(name)[0]} {kind}" for name, kind, _ in rows}, known)


def test_environment_variables():
    """Names in capitals in the files that read or set the environment; those of a prefix are the recorded ones."""
    known = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if re.search(r"\benviron\b|\bgetenv\b|^VARIABLES\b", text, re.MULTILINE):
            known |= {
                node.value
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
                if re.fullmatch(r"[A-Z][A-Z0-9]*_[A-Z0-9_]*", node.value)
            }
    recorded = set(environment._VARIABLES)
    shown = listed("environment.md", "Read") | listed("environment.md", "Set")
    check_listed("environment.md", "Read' or 'Set", shown, known - recorded)
    check_listed("environment.md", "Recorded", listed("environment.md", "Recorded"), recorded)


def test_extras_for_cuda_are_those_of_the_project():
    extras = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    known = {name for name in extras if name.startswith(("cuda", "gpu", "tensorrt"))}
    check_listed("compatibility.md", "TensorRT and CUDA", listed("compatibility.md", "TensorRT and CUDA"), known)
    for cell, brings, *_ in tables("compatibility.md", "TensorRT and CUDA")[0]:
        (extra,) = names_in(cell)
        for requirement in names_in(brings):
            assert requirement in extras[extra], f"compatibility.md: {extra} brings {', '.join(extras[extra])}"


def test_bindings_are_those_that_the_conformance_test_reads():
    tested = (Path(__file__).parent / "engines" / "tensorrt" / "test_conformance.py").read_text()
    checked = set(re.findall(r'"tensorrt_(?:lean_)?cu1[23]_bindings==(\d+\.\d+)', tested))
    text = section("compatibility.md", "TensorRT and CUDA")
    shown = {version for marks in re.findall(r"bindings \(([^)]*)\)", text) for version in marks.split(", ")}
    check_listed("compatibility.md", "TensorRT and CUDA", shown, checked)


def test_targets_and_precisions_are_those_of_tensorrt_for_rtx():
    flavour = load_flavour("tensorrt-rtx")
    known = {
        f"{name} {', '.join(each.upper() for each in get_args(Precision) if name not in flavour.refused_targets(each))}"
        for name in flavour.targets
    }
    rows = [row for row in tables("compatibility.md", "GPUs")[0] if names_in(row[1])]
    assert {row[4] for row in rows} == {"built"}
    check_listed("compatibility.md", "GPUs", {f"{names_in(row[1])[0]} {row[5]}" for row in rows}, known)


def test_pythons_are_those_that_the_project_names():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    *most, last = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert f"evodeploy supports Python {', '.join(most)} and {last}." in section("compatibility.md", "Python")


def test_fields_of_a_comparison():
    change = Change("torch", 1, Interval(1.0, 1.0, 1.0), 0.5, "same")
    check_fields("Comparison of two benches", Comparison((change,), ("a",), ("b",), ("c",)).to_dict())


def test_a_field_that_a_page_lacks_is_named():
    with pytest.raises(AssertionError, match=r"section 'Load test': add extra, which the code has"):
        check_listed("results-file.md", "Load test", ["url"], ["url", "extra"])
    with pytest.raises(AssertionError, match=r"section 'Load test': remove url, which the code does not have"):
        check_listed("results-file.md", "Load test", ["url"], [])
    assert fields_of([{"a": None, "b": [{"c": 1}], "d": {"x": 1}}, {"a": {"e": 1}}], {"d.*"}) == {"a.e", "b[].c", "d.*"}


@pytest.mark.parametrize("fast_path", untrained._FIGURES)
def test_the_warning_of_an_untrained_selection_has_the_figures_of_its_page(fast_path):
    said = untrained._FIGURES[fast_path]
    page = (PACKAGE.parent / re.search(r"\((docs/.*)\)", said)[1]).read_text(encoding="utf-8")
    ratios = re.findall(r"([\d.]+ %)[^%]*? (all|[\d.]+)(?=[ ,]|$)", said)
    assert len(ratios) == 3
    for accuracy, ratio in ratios:
        row = r"1\.0|dense" if ratio == "all" else re.escape(ratio)
        assert re.search(rf"^\| ({row}) \| {re.escape(accuracy)}", page, re.MULTILINE)
