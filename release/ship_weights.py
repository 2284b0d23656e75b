"""Make the weights of a training run the shipped ones, with their model card in the file and as Markdown beside it.

    python release/ship_weights.py v1 out/train out/evaluation

The second argument is the output of `deepmtdr train`; its `weights.safetensors` may have been calibrated by `deepmtdr
calibrate`. The third is the output of `deepmtdr evaluate --flips` on the test split. The texts about data, licence and
limits are in `release/cards/<name>.toml`. To load the weights by default, set `SHIPPED_WEIGHTS` in `checkpoint.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from model_card import card_markdown, make_card, read_texts

from deepmtdr import checkpoint

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "src" / "deepmtdr" / "weights"


def ship(name: str, run: Path, evaluation: Path, weights: Path = WEIGHTS) -> Path:
    """Write `<name>.safetensors`, `.json` and `.md`.

    Args:
        name: name of the weights and of the file with the texts of the card.
        run: folder of the training run.
        evaluation: folder with `evaluation.json`.
        weights: folder that is written to.

    Returns:
        The path of the `.safetensors` file.

    Raises:
        UnfinishedCardError: if a text is missing or unfinished.
    """
    texts = read_texts(HERE / "cards" / f"{name}.toml")
    trained = checkpoint.load(run / "weights.safetensors")
    evaluated, cost = (
        json.loads(path.read_text()) if path.exists() else None
        for path in (evaluation / "evaluation.json", run / "run.json")
    )
    if evaluated is None:
        raise SystemExit(f"{evaluation}: found no evaluation.json, expected the output of `deepmtdr evaluate`")
    card = make_card(texts, trained.card, evaluated, cost)
    target = weights / f"{name}.safetensors"
    checkpoint.save(target, trained.model, trained.recipe, half=True, **card)
    target.with_suffix(".md").write_text(card_markdown(card, checkpoint.load(target).digest))
    return target


if __name__ == "__main__":
    shipped = ship(sys.argv[1], *map(Path, sys.argv[2:4]))
    print(f"{shipped}: {shipped.stat().st_size / 1e6:.1f} MB")
