"""The ablations of the paper as functions Recipe -> Recipe (Secs. V-C and V-D, Fig. 10, Tables V and VI), and others.

The others undo, one by one, what this implementation does differently from the paper (interpretations R26 to R29).

Ablations change settings only, never the training loop. They can be combined in any order, and applying an ablation
twice changes nothing. Each adds its name to the name of the recipe: `paper-ddr_without-isr`. Train an ablation from
scratch: with `--init` a removed or frozen subnet would keep its trained weights.

`experiments.ablation_study` trains and compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from deepmtdr.errors import RecipeError
from deepmtdr.files import slug
from deepmtdr.losses import GRADING_FORMS
from deepmtdr.model.stable_evidence import UNPREPARED_EVIDENCE
from deepmtdr.recipe import STAGES, Recipe, TrainingStage
from deepmtdr.systems import EVIDENCE_METHODS
from deepmtdr.terms import SCALES

Ablation = Callable[[Recipe], Recipe]
S = TypeVar("S", bound=TrainingStage)

TASK_AWARE_LOSSES = ("lambda_sa", "lambda_ca")
CONNECTING_LOSSES = (*TASK_AWARE_LOSSES, "unsupervised")
"""Eqs. (4), (5) and (9): the losses of one subnet that are computed from the output of another."""
SEGMENTATION_LOSSES = ("dice", "lesion_cross_entropy", "unsupervised")


def without_isr(recipe: Recipe) -> Recipe:
    """Fig. 10 (a), setting 1: no ISR subnet, and none of the losses of Eq. (11), which train only this subnet.

    An untrained ISR subnet is bicubic interpolation (interpretation R2), which enlarges the LR images here.
    """
    losses = ("lambda_img", "lambda_tv", *TASK_AWARE_LOSSES)
    return _change_all(recipe, "without-isr", frozen="isr", removed=losses)


def with_isr_frozen(recipe: Recipe) -> Recipe:
    """Fig. 10 (a), setting 2: the ISR subnet is trained independently, and frozen in the joint stage."""
    return _change_joint(recipe, "with-isr-frozen", frozen="isr")


def without_segmentation(recipe: Recipe) -> Recipe:
    """Fig. 10 (b), setting 1: no lesion segmentation subnet, and no loss that needs its maps.

    The grading subnet gets empty lesion maps, so the image is never hidden. GMSV has no lesion region and keeps all
    channels (interpretation R6).
    """
    removed = replace(
        recipe,
        model=replace(recipe.model, segments=False),
        grading=replace(recipe.grading, hide_image=0.0),
    )
    losses = ("lambda_sa", *SEGMENTATION_LOSSES)
    return _change_all(removed, "without-segmentation", frozen="segmentation", removed=losses)


def with_segmentation_frozen(recipe: Recipe) -> Recipe:
    """Fig. 10 (b), setting 2: the segmentation subnet is trained independently, and frozen in the joint stage.

    Eqs. (8) and (9) are left out there: they would still train the ISR subnet. Eq. (4) is a loss of the ISR subnet, and
    stays.
    """
    return _change_joint(recipe, "with-segmentation-frozen", frozen="segmentation", removed=SEGMENTATION_LOSSES)


def without_segmentation_aware_loss(recipe: Recipe) -> Recipe:
    """Fig. 10 (c): without SAL, Eq. (4)."""
    return _change_all(recipe, "without-segmentation-aware-loss", removed=("lambda_sa",))


def without_classification_aware_loss(recipe: Recipe) -> Recipe:
    """Fig. 10 (c): without CAL, Eq. (5)."""
    return _change_all(recipe, "without-classification-aware-loss", removed=("lambda_ca",))


def without_task_aware_losses(recipe: Recipe) -> Recipe:
    """Fig. 10 (c): with neither SAL nor CAL, Eqs. (4) and (5)."""
    return _change_all(recipe, "without-task-aware-losses", removed=TASK_AWARE_LOSSES)


def with_evidence(recipe: Recipe, evidence: str) -> Recipe:
    """Table V: replace GMSV by another evidence method. The method "without maps" compares only the DR scores.

    Args:
        recipe: the recipe to change.
        evidence: a name of `systems.EVIDENCE_METHODS`.

    Raises:
        RecipeError: if there is no such method.
    """
    if evidence not in EVIDENCE_METHODS:
        raise RecipeError(f"unknown evidence method {evidence!r}, expected one of {', '.join(EVIDENCE_METHODS)}")
    changed = replace(recipe, parts=replace(recipe.parts, evidence=evidence))
    name = slug(evidence)
    return _add_name(changed, name if evidence == "without maps" else f"with-{name}")


def with_scale(recipe: Recipe, scale: int) -> Recipe:
    """Table VI and Fig. 4: LR images of one scale only; 512 px to 1024 px are x2 (interpretation R1).

    Raises:
        RecipeError: if there is no such scale.
    """
    if scale not in SCALES:
        raise RecipeError(f"found scale {scale}, expected one of {', '.join(map(str, SCALES))}")
    stages = [replace(stage, scales={str(scale): 1.0}) for stage in recipe.stages]
    return _add_name(_with_stages(recipe, stages), f"with-scale-{scale}")


def with_supervision(recipe: Recipe, share: float) -> Recipe:
    """Sec. V-D: the lesion masks of a share of the annotated photographs; in the paper 75, 50 and 25 %.

    Raises:
        RecipeError: if the share is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise RecipeError(f"found pixel-wise supervision of {share}, expected a share from 0 to 1")
    changed = replace(recipe, data=replace(recipe.data, supervision=share))
    return _add_name(changed, f"with-supervision-{100 * share:g}")


def without_semi_supervision(recipe: Recipe) -> Recipe:
    """Sec. V-D, the complement: without Eq. (9), lesions are learned from annotated photographs only."""
    return _change_all(recipe, "without-semi-supervision", removed=("unsupervised",))


def without_grading(recipe: Recipe) -> Recipe:
    """Sec. III, Finding 2, Fig. 4 (b): super-resolution and segmentation jointly, without grading and its evidence."""
    losses = ("grading", "lambda_ca", "unsupervised")
    return _change_all(recipe, "without-grading", frozen="grading", removed=losses)


def separate(recipe: Recipe) -> Recipe:
    """The control of Sec. V-C: the joint stage without the losses that connect the tasks, Eqs. (4), (5) and (9).

    It has the batches and steps of the joint stage. Each subnet is trained by its own losses, as in the first stages.
    """
    changed = _change_joint(recipe, "separate", removed=CONNECTING_LOSSES)
    return replace(changed, joint=replace(changed.joint, end_to_end=False))


def end_to_end(recipe: Recipe) -> Recipe:
    """Interpretation R27: in the joint stage the segmentation and grading losses also train the ISR subnet."""
    return _add_name(replace(recipe, joint=replace(recipe.joint, end_to_end=True)), "end-to-end")


def with_unlimited_task_aware_gradients(recipe: Recipe) -> Recipe:
    """Interpretation R27: in the joint stage the gradients of Eqs. (4) and (5) at the SR image are not limited."""
    loss = replace(recipe.joint.loss, task_aware_share=0.0)
    changed = replace(recipe, joint=replace(recipe.joint, loss=loss))
    return _add_name(changed, "unlimited-task-aware-gradients")


def with_evidence_unprepared(recipe: Recipe) -> Recipe:
    """Interpretation R28: the evidence is neither averaged nor smoothed nor scaled before its threshold."""
    return _add_name(replace(recipe, joint=replace(recipe.joint, evidence=UNPREPARED_EVIDENCE)), "evidence-unprepared")


def without_dropout_in_joint(recipe: Recipe) -> Recipe:
    """Interpretation R29: the grading loss of the joint stage is computed without dropout."""
    return _add_name(replace(recipe, joint=replace(recipe.joint, dropout=False)), "without-dropout-in-joint")


def without_balance_in_joint(recipe: Recipe) -> Recipe:
    """Interpretation R29: the joint stage draws photographs as often as their grades occur."""
    return _add_name(replace(recipe, joint=replace(recipe.joint, balance=0.0)), "without-balance-in-joint")


def with_grading_loss(recipe: Recipe, form: str) -> Recipe:
    """Interpretation R26: another form of the grading loss, in all stages.

    Args:
        recipe: the recipe to change.
        form: a name of `losses.GRADING_FORMS`.

    Raises:
        RecipeError: if there is no such form.
    """
    if form not in GRADING_FORMS:
        raise RecipeError(f"found the grading loss {form!r}, expected one of {', '.join(GRADING_FORMS)}")
    stages = [replace(stage, loss=replace(stage.loss, grading_form=form)) for stage in recipe.stages]
    return _add_name(_with_stages(recipe, stages), f"loss-{form}")


def without_head_norm(recipe: Recipe) -> Recipe:
    """Interpretation R26: the pooled vector of the paper's grading subnet is not normalised."""
    grading = replace(recipe.model.grading, head_norm=False)
    return _add_name(replace(recipe, model=replace(recipe.model, grading=grading)), "without-head-norm")


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
    "separate": separate,
    "end-to-end": end_to_end,
    "unlimited-task-aware-gradients": with_unlimited_task_aware_gradients,
    "evidence-unprepared": with_evidence_unprepared,
    "without-dropout-in-joint": without_dropout_in_joint,
    "without-balance-in-joint": without_balance_in_joint,
    "loss-eq10": partial(with_grading_loss, form="eq10"),
    "loss-cross-entropy": partial(with_grading_loss, form="cross-entropy"),
    "without-head-norm": without_head_norm,
}
"""Name of an ablation -> its function. First those of Secs. V-C and V-D in the paper's order; from
"without-semi-supervision" on they have no table in the paper.

The name is added to the name of the recipe.
"""


def start_from_stage(recipe: Recipe, name: str) -> Recipe:
    """Skip the stages before one: the run starts from a checkpoint, with `--init`.

    Raises:
        RecipeError: if there is no such stage.
    """
    first = STAGES.index(recipe.stage(name).name)
    return _skip_stages(recipe, STAGES[:first], f"from-{name}")


def keep_only_stage(recipe: Recipe, name: str) -> Recipe:
    """Skip all stages but one.

    Raises:
        RecipeError: if there is no such stage.
    """
    kept = recipe.stage(name).name
    return _skip_stages(recipe, [other for other in STAGES if other != kept], f"only-{name}")


def _change_all(recipe: Recipe, name: str, *, frozen: str = "", removed: Sequence[str] = ()) -> Recipe:
    """Freeze a subnet and remove losses in every stage."""
    stages = [_change(stage, frozen, removed) for stage in recipe.stages]
    return _add_name(_with_stages(recipe, stages), name)


def _change_joint(recipe: Recipe, name: str, *, frozen: str = "", removed: Sequence[str] = ()) -> Recipe:
    """Freeze a subnet and remove losses in the joint stage."""
    return _add_name(replace(recipe, joint=_change(recipe.joint, frozen, removed)), name)


def _change(stage: S, frozen: str, removed: Sequence[str]) -> S:
    """Freeze a subnet and remove losses in a stage; the stage is skipped if nothing is left to train."""
    rates = {f"lr_{frozen}": 0.0} if frozen in stage.learning_rates else {}
    changed = replace(stage, **rates, loss=replace(stage.loss, **dict.fromkeys(removed, 0.0)))
    return changed if any(changed.learning_rates.values()) else replace(changed, steps=0)


def _skip_stages(recipe: Recipe, names: Iterable[str], name: str) -> Recipe:
    stages = [replace(recipe.stage(name), steps=0) for name in names]
    return _add_name(_with_stages(recipe, stages), name)


def _with_stages(recipe: Recipe, stages: Iterable[TrainingStage]) -> Recipe:
    return replace(recipe, **{stage.name: stage for stage in stages})


def _add_name(recipe: Recipe, name: str) -> Recipe:
    """Add the name of an ablation to the name of the recipe, once."""
    names = recipe.name.split("_")[1:]
    return recipe if name in names else replace(recipe, name=f"{recipe.name}_{name}")
