"""Make a training run's weights the shipped ones: their card in the header, the same card in Markdown beside them.

    python release/ship_weights.py out/train out/evaluation

The first folder is `deepmtdr train`'s, the second `deepmtdr evaluate`'s on the photographs that no training step saw.
The scores in the card are the evaluation's own; what is said of data, licence and limits stands here.
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
    "use": "Research only. Not a medical device: nobody's care may depend on what it says.",
    "photographs": [
        "IDRiD, training part (Porwal et al. 2018, CC BY 4.0): 54 photographs with lesion masks, 397 with grades",
        "EyePACS 2015, 732 training photographs with grades (competition terms: research, no redistribution)",
        "DIARETDB0, 118 photographs without pixel-wise annotation (research only)",
    ],
    "licence": "The weights saw EyePACS and DIARETDB0: for research, under those sets' terms. The code is Apache-2.0.",
    "split": "recipes/v0.split.csv, by patient, drawn anew for these weights so that each lesion type is held out; the "
    "side `test` was seen by no training step and chose no checkpoint. It was scored before and after "
    "`small-on`: the first told that the ISR subnet should go on. An earlier split of the same photographs, of whose "
    "test side 49 are on this one too, had judged earlier weights and the settings used here.",
    "recipe_name": "small, then small-on",
    "made": "Two CPU cores, bfloat16, at 256 -> 1024 px, from nothing, by the recipe `small`, about two hours: 3,200 "
    "steps of ISR and segmentation, 1,100 of grading, 60 joint ones; then by `small-on`, ten minutes: 2,500 of ISR.",
    "limits": [
        "Lesion masks of one camera in one clinic (IDRiD) are all that the lesions were learned from.",
        "Eleven held-out photographs have lesion masks, five of them soft exudates: those scores are rough.",
        "Venous beading, IRMA and new vessels are not segmented; severe and proliferative disease hang on the image.",
        "A photograph that is no retina, or too poor to grade, is refused by simple measures only.",
    ],
}


def scores_of(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """The evaluation's scores, without what is undefined."""
    kept = ("task", "dataset", "subject", "score", "value", "low", "high", "photographs")
    return [{key: score[key] for key in kept} for score in evaluation["scores"] if score["value"] is not None]


def markdown(card: dict[str, Any], digest: str) -> str:
    """The model card for people."""
    lines = [f"# Weights {card['weights']}", "", f"SHA-256 of card and tensors: `{digest}`", ""]
    for title in ("use", "photographs", "licence", "split", "made", "limits"):
        value = card[title]
        body = [f"- {item}" for item in value] if isinstance(value, list) else [value]
        lines += [f"## {title.capitalize()}", "", *body, ""]
    lines += [
        "## Scores",
        "",
        f"On the held-out side, from x4 low-resolution input (256 px), computed in {card['precision']}; 95 % intervals",
        "by bootstrap over patients.",
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
        **{"data": trained.card["data"], "stage": trained.card["stage"]},
        **{"precision": evaluated["protocol"]["precision"], "scores": scores_of(evaluated)},
    }
    target = WEIGHTS / f"{checkpoint.SHIPPED_WEIGHTS}.safetensors"
    checkpoint.save(target, trained.model, trained.recipe, half=True, **card)
    target.with_suffix(".md").write_text(markdown(card, checkpoint.load(target).digest))
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
