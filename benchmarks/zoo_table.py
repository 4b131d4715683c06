"""The README's table of models: `python benchmarks/zoo_table.py`. Costs are counted; accuracies are the paper's."""

from __future__ import annotations

from evodeploy.models.cost import cost_of
from evodeploy.models.zoo import ZOO, dense_twin

# Top-1 in % and images per second as published (Evo-ViT, AAAI 2022, tables of the main comparison).
PUBLISHED = {
    "evo_deit_tiny_patch16_224": (72.0, 4027),
    "evo_deit_small_patch16_224": (79.4, 1510),
    "evo_deit_base_patch16_224": (81.3, 462),
    "evo_deit_base_patch16_384": (82.0, 139),
    "EvoLeViT_128S": (73.0, 10135),
    "EvoLeViT_128": (74.4, 8323),
    "EvoLeViT_192": (76.8, 6148),
    "EvoLeViT_256": (78.8, 4277),
    "EvoLeViT_384": (80.7, 2412),
    "EvoLeViT_256_384": (81.1, 1285),
    "EvoLeViT_384_384": (82.2, 712),
}

print(
    "| model | input | parameters | GFLOPs | dense twin | top-1, paper | img/s, paper |\n|---|---|---|---|---|---|---|"
)
for name, config in ZOO.items():
    cost, dense = cost_of(config), cost_of(dense_twin(config))
    top1, speed = PUBLISHED.get(name, ("–", "–"))
    print(
        f"| {name} | {config.image_size} | {cost.parameters / 1e6:.1f} M | {cost.gflops:.2f} | {dense.gflops:.2f} "
        f"| {top1} | {speed} |"
    )
