"""The best batch size of a distillation step: `python benchmarks/distilled_steps.py [--fast-path rest]`.

A DINOv2 ViT-S/14 learns the keep ratios 0.2 to 1.0 from handwritten digits without labels: from the same number of
images in steps of 32 and of 8, with a rate for each; if tokens rest, in steps of 8 at two rates. Prints, as a Markdown
table, the agreement of features on 100 digits that it does not learn from, before and after. Lengths are in images, so
other work on the machine changes nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from digits_probe import SIZE, digits
from labelled_sets import save
from real_weights import checkpoint

import evodeploy

STEPS = {  # number of steps, images per step, rate
    "merge": ((30, 32, 1.5e-5), (120, 8, 5e-6), (76, 32, 1.5e-5), (304, 8, 5e-6)),
    "rest": ((120, 8, 2e-5), (120, 8, 5e-5)),
}
TRAIN = 1195


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast-path", choices=STEPS, default="merge")
    fast_path = parser.parse_args().fast_path
    steps = STEPS[fast_path]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (train, _), (test, _) = digits(TRAIN, 599)
        save(folder / "train", train)
        save(folder / "test", test[::6])
        source = checkpoint(folder / "dinov2_small.pth")
        found = [
            evodeploy.distill(
                source, folder / "train", folder / "student.pth", elastic=(0.2, 1.0), stages=(4, 8),
                fast_path=fast_path, image_size=SIZE, val=folder / "test", epochs=count * batch / TRAIN,
                batch=batch, rate=rate, force=True,
            ).levels
            for count, batch, rate in steps
        ]  # fmt: skip
    names = [f"{count} steps of {batch} at {rate:g}".replace("e-0", "e-") for count, batch, rate in steps]
    print(f"| {' | '.join(['keep ratio', 'before', *names])} |")
    print("|---" * (2 + len(names)) + "|")
    for levels in zip(*found, strict=True):
        agreements = [levels[0].before.agreement, *(level.after.agreement for level in levels)]
        print(f"| {' | '.join([f'{levels[0].keep_ratios[0]}', *(f'{each.value:.1%}' for each in agreements)])} |")


if __name__ == "__main__":
    main()
