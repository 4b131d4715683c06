"""What may import what, what must not be imported until it is needed, and which words are not used."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import evodeploy

PACKAGE = Path(evodeploy.__file__).parent

# Each part and what of evodeploy it may import, besides itself and the ground that all build on.
GROUND = {
    "arguments",
    "arrays",
    "elastic",
    "errors",
    "specs",
    "files",
    "images",
    "kinds",
    "locks",
    "machine",
    "onnx_files",
    "schema",
    "spec_rules",
    "text",
}
ALLOWED = {
    "models": set(),
    "datasets": {"models"},
    "engines": {"models"},
    "preprocess": {"resampling", "tiff"},
    "resampling": set(),
    "tiff": set(),
    "graph": {"datasets", "engines", "preprocess"},
    "compare": {"datasets", "engines", "models", "preprocess"},
    "exporter": {"compare", "datasets", "engines", "graph", "models", "preprocess"},
    "builder": {"engines", "graph"},
    "artefacts": {"engines", "models"},
    "inference": {"compare", "datasets", "engines", "preprocess", "visualization"},
    "benchmark": {
        "artefacts",
        "builder",
        "compare",
        "datasets",
        "engines",
        "exporter",
        "graph",
        "inference",
        "models",
        "preprocess",
    },
    "cluster": set(),
    "distillation": {"datasets", "engines", "evaluation", "models", "preprocess"},
    "batch": {"artefacts", "cluster", "datasets", "engines", "inference", "preprocess"},
    "evaluation": {"artefacts", "datasets", "engines", "inference", "preprocess"},
    "visualization": {"compare", "datasets", "engines", "models", "preprocess"},
    "serving": {"artefacts", "cluster", "compare", "engines", "inference", "preprocess"},
    "load_testing": {"benchmark", "datasets"},
    "profiling": {"benchmark", "datasets", "engines", "graph", "preprocess"},
    "sweeper": {"artefacts", "benchmark", "datasets", "engines", "evaluation", "exporter", "models", "preprocess"},
    "repository": {"engines", "inference", "preprocess"},
    "inspection": {"engines", "graph", "models"},
    "debugging": {
        "benchmark",
        "builder",
        "compare",
        "datasets",
        "engines",
        "exporter",
        "graph",
        "models",
        "preprocess",
    },
}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found |= {name.split(".")[1] for name in names if name.startswith("evodeploy.")}
    return found


def files_of(part: str) -> list[Path]:
    home = PACKAGE / part
    return list(home.rglob("*.py")) if home.is_dir() else [home.with_suffix(".py")]


def test_dependencies_point_one_way():
    for part, allowed in ALLOWED.items():
        for path in files_of(part):
            beyond = imported(path) - allowed - GROUND - {part}
            assert not beyond, f"{path.relative_to(PACKAGE)} imports {beyond}"


def test_every_allowance_is_used():
    for part, allowed in ALLOWED.items():
        unused = allowed - set().union(*map(imported, files_of(part)))
        assert not unused, f"{part} imports nothing of {unused}"


def test_dependencies_have_no_circle():
    ground = {part: set().union(*map(imported, files_of(part))) - {part} for part in GROUND}
    assert all(needed <= GROUND for needed in ground.values()), ground
    for graph in (ALLOWED, ground):
        graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_every_part_has_its_rule():
    parts = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert parts - {"__init__", "__main__", "__pycache__", "cli"} == GROUND | set(ALLOWED)


@pytest.mark.parametrize("command", ["evaluate", "load_test", "margins", "predict", "verify", "visualize"])
def test_commands_call_public_functions_only(command):
    assert imported(PACKAGE / "cli" / f"{command}.py") <= GROUND | {"cli"}


HEAVY = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "safetensors",
    "pyarrow",
    "ray",
)


def modules_after(code: str, *wanted: str) -> list[str]:
    probe = f"{code}\nimport sys\nprint(*[m for m in {wanted!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return run.stdout.splitlines()[-1].split()


@pytest.mark.parametrize(
    "code",
    ["import evodeploy", "import evodeploy.cli", "from evodeploy import load, open_engine, Predictor, UsageError",
     "import evodeploy.builder.pipeline", "import evodeploy.exporter.pipeline", "from evodeploy import *",
     "import evodeploy.benchmark.pipeline", "import evodeploy.models.zoo", "import evodeploy.repository.python_models"],
)  # fmt: skip
def test_importing_loads_nothing_heavy(code):
    assert modules_after(code, *HEAVY) == []


def test_an_engine_needs_no_package_for_its_annotations():
    assert modules_after("import evodeploy.engines.base", "typing_extensions") == []


def test_help_loads_the_command_line_alone():
    """How long it takes is measured by benchmarks/help_time.py."""
    code = "from evodeploy.cli import app\ntry: app(['--help'])\nexcept SystemExit: pass"
    assert modules_after(code, "numpy", "PIL", *HEAVY, *(f"evodeploy.{part}" for part in ALLOWED)) == []


def test_running_an_onnx_file_needs_neither_torch_nor_onnx(small_onnx):
    code = f"import numpy, evodeploy\nwith evodeploy.open_engine({str(small_onnx)!r}) as e:\n"
    code += "    e.run(numpy.zeros((1, 3, 64, 64), 'float32'))"
    assert modules_after(code, "torch", "onnx") == []


def test_cores_are_counted_in_one_place():
    """`os.cpu_count` alone counts cores that the process may not use."""
    counting = [path for path in PACKAGE.rglob("*.py") if "cpu_count" in path.read_text(encoding="utf-8")]
    assert counting == [PACKAGE / "machine" / "cores.py"]


FUNCTIONS = (
    "bench", "bisect", "build", "debug", "distill", "evaluate", "export", "load", "load_test", "margins",
    "open_engine", "package", "profile", "refit", "roofline", "sweep", "verify", "visualize",
)  # fmt: skip
RECORDS = (
    "Agreement", "Bisection", "Build", "DebugReport", "Distilled", "EngineOptions", "Evaluation", "Export", "Failure",
    "Label", "LoadTest", "Margins", "ModelInfo", "Packaged", "Prediction", "Profile", "Refit", "Report", "Roofline",
    "Sweep", "Timing", "Visualization", "Written",
)  # fmt: skip
OTHERS = (
    "BadFileError", "Engine", "EvodeployError", "InputError", "MissingExtraError", "OutOfMemoryError", "Predictor",
    "RuntimeFailedError", "UnavailableError", "UsageError", "VerificationError", "__version__",
)  # fmt: skip


def test_completion_shows_the_public_names():
    assert set(evodeploy.__all__) <= set(dir(evodeploy))


def test_the_public_names():
    assert sorted(evodeploy.__all__) == sorted(FUNCTIONS + RECORDS + OTHERS)
    for name in evodeploy.__all__:
        assert getattr(evodeploy, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = evodeploy.laod


# Modules of the command line that are no command, and what the commands import of the stages besides public names:
# types for annotations, and functions that are public where they are. A command parses, calls and prints.
NO_COMMANDS = {"__init__", "console", "ending", "options", "reader", "token", "values"}
COMMANDS = {
    "batch": {"batch.run.BatchRequest", "batch.run.run_batch"},
    "bench": set(),
    "bench_compare": {"benchmark.report.compare.compare_benches"},
    "bench_trtexec": {"benchmark.trtexec.trtexec_lines"},
    "bisect": set(),
    "build": {"artefacts.newest_export", "builder.onnx_to_plan.Progress", "builder.options.HardwareCompatibility"},
    "debug": set(),
    "distill": set(),
    "evaluate": set(),
    "export": set(),
    "inspect": {"inspection.describe.describe", "inspection.diagnosis.diagnose"},
    "load_test": set(),
    "margins": set(),
    "models": {"models.published.published_models", "models.published.random_checkpoint"},
    "package": set(),
    "predict": set(),
    "profile": set(),
    "serve": {
        "serving.budget.budget_of",
        "serving.service",
        "serving.settings.Limits",
        "serving.settings.Settings",
        "serving.settings.tls_of",
    },
    "sweep": set(),
    "verify": set(),
    "visualize": set(),
}


def of_stages(path: Path) -> set[str]:
    """What a file imports of the stages, as `stage.module.name`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("evodeploy."):
            found |= {f"{node.module}.{alias.name}".removeprefix("evodeploy.") for alias in node.names}
    return {name for name in found if name.split(".")[0] in ALLOWED}


def beyond_public(command: str) -> set[str]:
    """What a command imports of the stages that is neither public nor in the table."""
    public = {f"{getattr(evodeploy, name).__module__}.{name}" for name in (*FUNCTIONS, *RECORDS)}
    found = of_stages(PACKAGE / "cli" / f"{command}.py") - COMMANDS.get(command, set())
    return {name for name in found if f"evodeploy.{name}" not in public}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_uses_public_functions_and_records(command):
    assert beyond_public(command) == set()


def test_every_command_is_listed_once():
    modules = {path.stem for path in (PACKAGE / "cli").glob("*.py")} - NO_COMMANDS
    assert sorted(modules) == sorted(COMMANDS)


# Words that hide what is meant; each has plainer ones, such as: report, show, infer, next to, separately, resume, fix.
UNUSED = "told|tells?|beside|apart|so many|goes on|stands|whoever|mend(s|ed)?"
TEXTS = (".c", ".css", ".html", ".js", ".md", ".ptx", ".py")
UNREAD = {Path(__file__).name, "commands.md"}  # this list, and the page that is made of what the commands' help says


def test_words_that_are_not_used():
    """An underscore ends a word, so that names of functions count too."""
    words = re.compile(rf"(?<![A-Za-z])({UNUSED})(?![A-Za-z])", re.IGNORECASE)
    root = PACKAGE.parent
    files = [path for folder in ("evodeploy", "docs", "tests") for path in (root / folder).rglob("*")]
    found = []
    for path in [*files, root / "README.md"]:
        if path.suffix in TEXTS and "_build" not in path.parts and path.name not in UNREAD:
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [f"{path}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if words.search(line)]
    assert found == []
