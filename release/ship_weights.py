"""Make the weights of a training run the shipped ones, with their model card in the file and as Markdown beside it.

    python release/ship_weights.py out/train out/evaluation

The first folder is the output of `deepmtdr train`, the second that of `deepmtdr evaluate` on the test split. The scores
in the card come from that evaluation; the texts about data, licence and limits are in this file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from deepmtdr import checkpoint

WEIGHTS = Path(__file__).parent.parent / "src" / "deepmtdr" / "weights"

ABOUT: dict[str, Any] = {
    "weights": checkpoint.SHIPPED_WEIGHTS,
    "use": "Research only. Not a medical device: no decision about the care of a patient may depend on its output.",
    "photographs": [
        "IDRiD, training part (Porwal et al. 2018, CC BY 4.0): 54 photographs with lesion masks, 397 with grades",
        "EyePACS 2015, 732 training photographs with grades (competition terms: research, no redistribution)",
        "DIARETDB0, 118 photographs without pixel-wise annotation (research only)",
    ],
    "licence": "The weights were trained on EyePACS and DIARETDB0 as well as IDRiD: for research, under the terms of "
    "those data sets. The code is Apache-2.0.",
    "split": "`recipes/v0.split.csv`, by patient, drawn for these weights so that the test split contains every lesion "
    "type. The `test` split was not used in any training step, and no checkpoint was selected on it. It was scored "
    "twice, before and after `small-on`: the first result led to the decision to continue training the ISR subnet. "
    "Earlier weights, and the settings used here, were judged on an earlier split of the same photographs; 49 "
    "photographs of its test split are in this one too.",
    "recipe_name": "small, then small-on",
    "made": "Two CPU cores, bfloat16, 256 -> 1024 px, from random initialisation. First the recipe `small`, about two "
    "hours: 3,200 steps of ISR and segmentation, 1,100 of grading, 60 joint steps. Then `small-on`, ten minutes: 2,500 "
    "steps of the ISR subnet.",
    "limits": [
        "All lesion masks come from one camera in one clinic (IDRiD).",
        "Eleven held-out photographs have lesion masks, five of them with soft exudates: those scores are rough.",
        "Venous beading, IRMA and new vessels are not segmented; severe and proliferative disease must be recognised "
        "from the image.",
        "Photographs that do not show a retina, or are too poor to grade, are rejected by simple measures only.",
    ],
}
TITLES = {
    "use": "Use",
    "photographs": "Photographs",
    "licence": "Licence",
    "split": "Split",
    "made": "Training",
    "limits": "Limits",
}
"""Key of the card -> title of its section in Markdown."""


def scores_of(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores of the evaluation that are defined."""
    kept = ("task", "dataset", "subject", "score", "value", "low", "high", "photographs")
    return [{key: score[key] for key in kept} for score in evaluation["scores"] if score["value"] is not None]


def markdown(card: dict[str, Any], digest: str) -> str:
    """The model card as Markdown."""
    lines = [f"# Weights {card['weights']}", "", f"SHA-256 of card and tensors: `{digest}`", ""]
    for key, title in TITLES.items():
        value = card[key]
        body = [f"- {item}" for item in value] if isinstance(value, list) else [value]
        lines += [f"## {title}", "", *body, ""]
    lines += [
        "## Scores",
        "",
        f"On the test split, from x4 low-resolution input (256 px), computed in {card['precision']}; 95 % intervals by "
        "bootstrap over patients.",
        "",
        "| task | data set | of | score | value | 95 % interval | photographs |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in card["scores"]:
        interval = "" if s["low"] is None else f"{s['low']:.3g} to {s['high']:.3g}"
        cells = (
            s["task"],
            s["dataset"],
            s["subject"],
            s["score"],
            f"{s['value']:.4g}",
            interval,
            str(s["photographs"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(run: Path, evaluation: Path) -> None:
    """Write `weights/v0.safetensors`, `.json` and `.md`."""
    trained = checkpoint.load(run / "weights.safetensors")
    evaluated = json.loads((evaluation / "evaluation.json").read_text())
    card = {
        **ABOUT,
        "data": trained.card["data"],
        "stage": trained.card["stage"],
        "precision": evaluated["protocol"]["precision"],
        "scores": scores_of(evaluated),
    }
    target = WEIGHTS / f"{checkpoint.SHIPPED_WEIGHTS}.safetensors"
    checkpoint.save(target, trained.model, trained.recipe, half=True, **card)
    target.with_suffix(".md").write_text(markdown(card, checkpoint.load(target).digest))
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
