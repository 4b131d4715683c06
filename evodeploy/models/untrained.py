"""Messages about token selection in a network that was not trained with it."""

from __future__ import annotations

from evodeploy.models.loaded import LoadedModel
from evodeploy.specs import FastPath


def selection_note(model: LoadedModel) -> str | None:
    """Return a note on `model` if it was not trained with selection, as a warning if it selects; else None."""
    if model.trained_to_select:
        return None
    if not model.info.dense:
        return warning(model)
    return (
        f"{model.config.name} was not trained with selection, so every token is kept: `evodeploy export --keep-ratio "
        "0.7` makes one that keeps fewer"
    )


# Accuracy of a DINOv2 ViT-S/14 on digits, and the page that has it with its command.
_FIGURES: dict[FastPath, str] = {
    "rest": "96.8 % of them right with all tokens, 90.0 % at keep ratio 0.7 and 76.3 % at 0.5 (docs/results.md)",
    "merge": "97.0 % of them right with all tokens, 96.0 % at 0.5 and 63.8 % at 0.2 (docs/howto/distill.md)",
}


def warning(model: LoadedModel) -> str:
    """Return a warning about the accuracy that keep ratios below 1.0 cost such a network."""
    fast_path = model.info.fast_path
    could_merge = fast_path == "rest" and "fast_path" in model.config.settings
    advice = "merge tokens (--fast-path merge), keep more, " if could_merge else "keep more tokens, "
    return (
        f"{model.config.name} was not trained with selection, and a keep ratio below 1.0 costs accuracy: a "
        f"DINOv2 that reads digits gets {_FIGURES[fast_path]}. `evodeploy eval` of this and of the "
        "dense export shows the cost on your data; `evodeploy verify` does not, because it "
        f"compares equal selections. To regain it, {advice}or train with selection: `evodeploy distill`"
    )
