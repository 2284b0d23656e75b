"""The ablations of the paper as functions Recipe -> Recipe (Secs. V-C and V-D, Fig. 10, Tables V and VI).

Each changes what a run is told, never the loop; they compose in any order, and twice is once. The name of the recipe
says which were taken: `paper-ddr_without-isr`. A subnet that is removed or fixed stands still in every sense: train an
ablation from nothing, not by `--init` from weights in which it has learned.

Not among them, since no recipe can say it: Eq. (10) as printed (reading R12), which is `literal=True` of
`losses.grading_loss` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from deepmtdr.errors import RecipeError
from deepmtdr.recipe import STAGES, Recipe, Stage
from deepmtdr.systems import EVIDENCE_METHODS
from deepmtdr.terms import SCALES
from deepmtdr.training.optimiser import STAGE_SUBNETS

Ablation = Callable[[Recipe], Recipe]


def without_isr(recipe: Recipe) -> Recipe:
    """Fig. 10 (a), setting 1: no ISR subnet, and no loss of Eq. (11), which trains it alone.

    An untrained ISR subnet is bicubic interpolation (reading R2): the others see the LR photograph enlarged.
    """
    return _everywhere(recipe, "without-isr", {"lr_isr": 0.0}, _none("lambda_img", "lambda_tv", *_TASK_AWARE))


def with_isr_frozen(recipe: Recipe) -> Recipe:
    """Fig. 10 (a), setting 2: the ISR subnet trained independently, fixed in the joint stage."""
    return _in_joint(recipe, "with-isr-frozen", {"lr_isr": 0.0}, {})


def without_segmentation(recipe: Recipe) -> Recipe:
    """Fig. 10 (b), setting 1: no lesion segmentation subnet, and no loss that needs its maps.

    The grading subnet is shown empty lesion maps, so the image is never hidden from it; GMSV, without a lesion region,
    keeps all channels (reading R6).
    """
    removed = replace(recipe, model=replace(recipe.model, segments=False))
    losses = _none("lambda_sa", *_SEGMENTATION)
    return _everywhere(removed, "without-segmentation", {"lr_segmentation": 0.0, "hide_image": 0.0}, losses)


def with_segmentation_frozen(recipe: Recipe) -> Recipe:
    """Fig. 10 (b), setting 2: segmentation trained independently, its maps as they are in the joint stage.

    Its own losses, Eqs. (8) and (9), are left out there: they would still teach the ISR subnet. Eq. (4) is one of the
    ISR subnet's, and stays.
    """
    return _in_joint(recipe, "with-segmentation-frozen", {"lr_segmentation": 0.0}, _none(*_SEGMENTATION))


def without_segmentation_aware_loss(recipe: Recipe) -> Recipe:
    """Fig. 10 (c): without SAL, Eq. (4)."""
    return _everywhere(recipe, "without-segmentation-aware-loss", {}, _none("lambda_sa"))


def without_classification_aware_loss(recipe: Recipe) -> Recipe:
    """Fig. 10 (c): without CAL, Eq. (5)."""
    return _everywhere(recipe, "without-classification-aware-loss", {}, _none("lambda_ca"))


def without_task_aware_losses(recipe: Recipe) -> Recipe:
    """Fig. 10 (c): with neither SAL nor CAL, Eqs. (4) and (5)."""
    return _everywhere(recipe, "without-task-aware-losses", {}, _none(*_TASK_AWARE))


def with_evidence(recipe: Recipe, evidence: str) -> Recipe:
    """Table V: another way to show evidence in the place of GMSV, or the DR scores without maps.

    Args:
        recipe: what is changed.
        evidence: a name of `baselines.EVIDENCE_METHODS`.

    Raises:
        RecipeError: if there is none of that name.
    """
    if evidence not in EVIDENCE_METHODS:
        raise RecipeError(f"evidence {evidence!r}, expected one of {', '.join(EVIDENCE_METHODS)}")
    slug = evidence.lower().replace(" ", "-")
    shown = replace(recipe, parts=replace(recipe.parts, evidence=evidence))
    return _named(shown, slug if evidence == "without maps" else f"with-{slug}")


def with_scale(recipe: Recipe, scale: int) -> Recipe:
    """Table VI and Fig. 4: every photograph comes into the frame by one scale; 512 px into 1024 are x2 (reading R1).

    Raises:
        RecipeError: if there is no such scale.
    """
    if scale not in SCALES:
        raise RecipeError(f"a scale of {scale}, expected one of {', '.join(map(str, SCALES))}")
    return _everywhere(recipe, f"with-scale-{scale}", {"scales": {str(scale): 1.0}}, {})


def with_supervision(recipe: Recipe, share: float) -> Recipe:
    """Sec. V-D: pixel-wise annotation of a share of the annotated photographs; the paper has 75, 50 and 25 %.

    Raises:
        RecipeError: if it is no share.
    """
    if not 0 <= share <= 1:
        raise RecipeError(f"pixel-wise supervision of {share}, expected a share from 0 to 1")
    supervised = replace(recipe, data=replace(recipe.data, supervision=share))
    return _named(supervised, f"with-supervision-{100 * share:g}")


def without_semi_supervision(recipe: Recipe) -> Recipe:
    """Sec. V-D, the other side of its question: no Eq. (9), so lesions are learned from annotated photographs alone."""
    return _everywhere(recipe, "without-semi-supervision", {}, _none("unsupervised"))


def without_grading(recipe: Recipe) -> Recipe:
    """Sec. III, Finding 2, Fig. 4 (b): ISR and segmentation jointly, without a grade and the evidence of one."""
    losses = _none("grading", "lambda_ca", "unsupervised")
    return _everywhere(recipe, "without-grading", {"lr_grading": 0.0}, losses)


ABLATIONS: dict[str, Ablation] = {
    "without-isr": without_isr,
    "with-isr-frozen": with_isr_frozen,
    "without-segmentation": without_segmentation,
    "with-segmentation-frozen": with_segmentation_frozen,
    "without-task-aware-losses": without_task_aware_losses,
    "without-classification-aware-loss": without_classification_aware_loss,
    "without-segmentation-aware-loss": without_segmentation_aware_loss,
    "without-maps": partial(with_evidence, evidence="without maps"),
    "with-guided-backpropagation": partial(with_evidence, evidence="guided backpropagation"),
    "with-grad-cam": partial(with_evidence, evidence="Grad-CAM"),
    "with-smoothgrad": partial(with_evidence, evidence="SmoothGrad"),
    "with-scale-2": partial(with_scale, scale=2),
    "with-supervision-75": partial(with_supervision, share=0.75),
    "with-supervision-50": partial(with_supervision, share=0.5),
    "with-supervision-25": partial(with_supervision, share=0.25),
    "without-semi-supervision": without_semi_supervision,
    "without-grading": without_grading,
}
"""In the order of Secs. V-C and V-D, then what goes beyond their tables; a name is what the recipe's name is given."""


def start_from_stage(recipe: Recipe, name: str) -> Recipe:
    """Leave out the stages before one: the run starts from a checkpoint, by `--init`.

    Raises:
        RecipeError: if there is no such stage.
    """
    return _with_stages(recipe, STAGES[_place(name) :], f"from-{name}")


def keep_only_stage(recipe: Recipe, name: str) -> Recipe:
    """Leave out all stages but one.

    Raises:
        RecipeError: if there is no such stage.
    """
    return _with_stages(recipe, (STAGES[_place(name)],), f"only-{name}")


_TASK_AWARE = ("lambda_sa", "lambda_ca")
_SEGMENTATION = ("dice", "lesion_cross_entropy", "unsupervised")


def _none(*losses: str) -> dict[str, float]:
    return dict.fromkeys(losses, 0.0)


def _everywhere(recipe: Recipe, slug: str, settings: Mapping[str, Any], losses: Mapping[str, float]) -> Recipe:
    """Change every stage alike; one in which nothing is left to learn is left out."""
    return _changed(recipe, STAGES, slug, settings, losses)


def _in_joint(recipe: Recipe, slug: str, settings: Mapping[str, Any], losses: Mapping[str, float]) -> Recipe:
    return _changed(recipe, ("joint",), slug, settings, losses)


def _changed(
    recipe: Recipe, names: tuple[str, ...], slug: str, settings: Mapping[str, Any], losses: Mapping[str, float]
) -> Recipe:
    stages = {}
    for name in names:
        stage: Stage = getattr(recipe, name)
        stage = replace(stage, **settings, loss=replace(stage.loss, **losses))
        learns = any(getattr(stage, f"lr_{subnet}") for subnet in STAGE_SUBNETS[name])
        stages[name] = stage if learns else replace(stage, steps=0)
    return _named(replace(recipe, **stages), slug)


def _with_stages(recipe: Recipe, kept: tuple[str, ...], slug: str) -> Recipe:
    stages = {name: replace(getattr(recipe, name), steps=0) for name in STAGES if name not in kept}
    return _named(replace(recipe, **stages), slug)


def _place(name: str) -> int:
    if name not in STAGES:
        raise RecipeError(f"no stage is known as {name!r}; known are {', '.join(STAGES)}")
    return STAGES.index(name)


def _named(recipe: Recipe, slug: str) -> Recipe:
    """The recipe's name with what was changed, once."""
    taken = recipe.name.split("_")[1:]
    return recipe if slug in taken else replace(recipe, name=f"{recipe.name}_{slug}")
