"""Speed and memory of GMSV (Sec. IV-B), compared with a straightforward form that loops over channels.

The straightforward form enlarges each channel to the frame. "evidence": the grading subnet's forward pass, the evidence
and its double backward, the gradient of Eq. (5) with respect to the image; float32. "joint step": a whole step of stage
2 (Sec. IV-C), in the precision of the shipped weights' recipe.

Both forms use the same drawing and weights. They agree closely but not exactly, since the project selects on each
layer's own grid (interpretation R6) and enlarges by x2 from layer to layer; the agreement is measured too. Each form
runs in a separate process, so that peak memory is measured separately. The two take turns, so that other load on the
machine slows both.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from subprocess import PIPE
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from deepmtdr import checkpoint
from deepmtdr.losses import classification_aware_loss
from deepmtdr.model.gmsv import EPSILON, GMSV, REGION_THRESHOLD, select_features
from deepmtdr.model.grading import GradingConfig, GradingSubnet, dr_score
from deepmtdr.model.isr import bicubic
from deepmtdr.model.precision import resolve_precision
from deepmtdr.model.preprocessing import image_to_tensor, local_contrast
from deepmtdr.photographs.field_of_view import crop_to_frame
from deepmtdr.photographs.geometry import crop_mask
from deepmtdr.synthetic.drawings import draw_photograph
from deepmtdr.terms import FRAME, Grade
from deepmtdr.training.backward import backward_by_subnet
from deepmtdr.training.batches import Batch
from deepmtdr.training.step_losses import joint_losses


class Case(NamedTuple):
    """One measurement, at the full frame."""

    width: int
    """Width of the grading subnet: the shipped 32, the paper's 64; 0: a joint step of the whole shipped network."""
    lesions: bool = True
    """Without a lesion region every channel is selected (interpretation R6), which is the most work."""


CASES = {
    "evidence, 512 channels": Case(32),
    "evidence, 512 channels, all kept": Case(32, lesions=False),
    "evidence, 1024 channels": Case(64),
    "joint step, 512 channels": Case(0),
}
SCALE, REPEATS = 4, 3


class StraightforwardGMSV(GMSV):
    """Eqs. (2), (3) and Algorithm 1 as printed, one channel of one photograph at a time, all at the frame's size."""

    def forward(
        self, score: Tensor, features: Sequence[Tensor], lesion_region: Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """The evidence, as `GMSV` computes it."""
        with torch.autocast(score.device.type, enabled=False):
            gradients = torch.autograd.grad(score.sum(), features, create_graph=create_graph, retain_graph=True)
            maps = []
            for n, region in enumerate(lesion_region[:, 0] > REGION_THRESHOLD):
                evidence = torch.zeros(region.shape)
                for j in reversed(range(len(features))):
                    layer, layer_weight = torch.zeros(region.shape), torch.zeros(())
                    for c in self.selected(features[j][n], region, self.xi[j]).nonzero().flatten():
                        weight = gradients[j][n, c].float().mean()
                        layer = layer + weight * _enlarged(features[j][n, c], region)
                        layer_weight = layer_weight + weight
                    evidence = layer if j == len(features) - 1 else evidence + layer_weight * layer
                evidence = evidence.relu()
                maps.append(evidence / evidence.max().clamp_min(EPSILON))
            return torch.stack(maps)[:, None]

    @torch.no_grad()
    def selected(self, features: Tensor, region: Tensor, xi: Tensor) -> Tensor:
        """Eq. (2) for one layer of one photograph."""
        overlaps = []
        for channel, threshold in zip(features, xi, strict=True):
            mask = _enlarged(channel / channel.max().clamp_min(EPSILON), region) > threshold
            overlaps.append((mask & region).sum() / (mask | region).sum().clamp_min(1))
        overlap = torch.stack(overlaps)
        return (overlap > self.config.theta_seg * overlap.max()) | (overlap.max() == 0)


def _enlarged(channel: Tensor, region: Tensor) -> Tensor:
    """UP to 4H x 4W."""
    return F.interpolate(channel[None, None].float(), size=region.shape, mode="bilinear", align_corners=False)[0, 0]


FORMS = {"project": GMSV, "straightforward": StraightforwardGMSV}


def measure() -> dict[str, object]:
    """Every case in both forms, the ratio of their times and memory, and their agreement."""
    return {name: _compare(name) for name in CASES}


def _compare(name: str) -> dict[str, object]:
    """Median seconds of a step after a warm-up step, the process's peak memory, and the agreement."""
    with tempfile.TemporaryDirectory() as folder:
        files = {form: Path(folder) / f"{form}.safetensors" for form in FORMS}
        children = [
            subprocess.Popen(
                [sys.executable, "-m", __name__, name, form, str(file)], stdin=PIPE, stdout=PIPE, text=True
            )
            for form, file in files.items()
        ]
        rounds = [[_time_step(child) for child in children] for _ in range(1 + REPEATS)][1:]
        peaks = [int(child.communicate()[0]) for child in children]
        agreement = _agreement(*(load_file(file) for file in files.values()))
    seconds = [round(median(taken), 2) for taken in zip(*rounds, strict=True)]
    return {
        "seconds": dict(zip(FORMS, seconds, strict=True)),
        "peak_mib": dict(zip(FORMS, peaks, strict=True)),
        "ratio of seconds": round(median(theirs / ours for ours, theirs in rounds), 2),
        "ratio of peak memory": round(peaks[1] / peaks[0], 2),
        "agreement": agreement,
    }


def _time_step(child: subprocess.Popen[str]) -> float:
    """Let a child process do one step; its seconds."""
    assert child.stdin and child.stdout
    child.stdin.write("\n")
    child.stdin.flush()
    return float(child.stdout.readline())


def _agreement(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    """Agreement of evidence, selection and gradients (of Eq. (5), or in a joint step of the ISR subnet)."""
    agreement = {"cosine of the gradients": F.cosine_similarity(ours["gradient"], theirs["gradient"], dim=0)}
    if "evidence" in ours:
        evidence = torch.stack([ours["evidence"], theirs["evidence"]])
        agreement["correlation of the evidence"] = torch.corrcoef(evidence)[0, 1]
        agreement["largest difference of the evidence"] = evidence.diff(dim=0).abs().max()
        agreement["mean difference of the evidence"] = evidence.diff(dim=0).abs().mean()
        agreement["channels selected alike"] = (ours["selected"] == theirs["selected"]).float().mean()
    return {name: round(value.item(), 4) for name, value in agreement.items()}


def _run_steps(name: str, form: str, file: Path) -> None:
    """Do a step and print its seconds for each line of input; at the end save the results and print the peak memory."""
    case = CASES[name]
    step, selected = _evidence(FORMS[form], case) if case.width else _joint_step(FORMS[form])
    found = {}
    for _ in sys.stdin:
        begun = time.perf_counter()
        found = step()
        print(time.perf_counter() - begun, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)  # KiB on Linux
    save_file(found | selected(), file)


Step = Callable[[], dict[str, Tensor]]


def _evidence(form: type[GMSV], case: Case) -> tuple[Step, Step]:
    """Eq. (5) for a super-resolved drawing at x4, and the selected channels."""
    grading = _grading(case.width)
    gmsv = form(grading.channels)
    hr, lesions = _drawing()
    sr = bicubic(bicubic(hr, 1 / SCALE), SCALE).clamp(0, 1).requires_grad_()
    region = lesions.amax(dim=1, keepdim=True) * case.lesions
    logits, layers, _ = grading(local_contrast(hr), lesions)
    target = gmsv(dr_score(logits), layers, region).detach()
    del logits, layers

    def step() -> dict[str, Tensor]:
        logits, layers, _ = grading(local_contrast(sr), lesions)
        evidence = gmsv(dr_score(logits), layers, region, create_graph=True)
        (gradient,) = torch.autograd.grad(classification_aware_loss(evidence, target), sr)
        return {"evidence": evidence.detach().flatten(), "gradient": gradient.flatten()}

    def selected() -> dict[str, Tensor]:
        with torch.no_grad():
            _, layers, _ = grading(local_contrast(sr), lesions)
        if isinstance(gmsv, StraightforwardGMSV):
            chosen = [
                gmsv.selected(layer[0], region[0, 0] > REGION_THRESHOLD, xi)
                for layer, xi in zip(layers, gmsv.xi, strict=True)
            ]
        else:
            theta_seg = gmsv.config.theta_seg
            chosen = [
                select_features(layer, region, xi, theta_seg)[0] for layer, xi in zip(layers, gmsv.xi, strict=True)
            ]
        return {"selected": torch.cat(chosen)}

    return step, selected


def _joint_step(form: type[GMSV]) -> tuple[Step, Step]:
    """A step of the joint stage with batch size 1, with the settings of the shipped weights' recipe."""
    model, recipe, *_ = checkpoint.load()
    gmsv = form(model.grading.channels)
    gmsv.load_state_dict(model.gmsv.state_dict())
    model.gmsv = gmsv
    hr, masks = _drawing()
    known = torch.ones(1, dtype=torch.bool)
    batch = Batch(hr, hr, masks, known.expand(1, masks.shape[1]), torch.tensor([int(Grade.SEVERE)]), known)

    def step() -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=resolve_precision(recipe.precision) == "bf16"):
            losses = joint_losses(model, batch, SCALE, recipe.joint.loss)
        backward_by_subnet(losses, model, end_to_end=True)
        return {"gradient": torch.cat([p.grad.flatten() for p in model.isr.parameters() if p.grad is not None])}

    return step, dict


def _grading(width: int) -> GradingSubnet:
    """The shipped subnet if it has that width, else an untrained one with positive weights for DR."""
    shipped = checkpoint.load().model.grading
    if shipped.channels[0] == width:
        return shipped
    torch.manual_seed(0)
    grading = GradingSubnet(config=GradingConfig(width=width)).eval()
    with torch.no_grad():
        grading.spp_fc.weight.abs_()
        grading.classifier.weight.abs_()[Grade.NEGATIVE].neg_()
    return grading


def _drawing() -> tuple[Tensor, Tensor]:
    """The field of view of a drawn photograph of grade 3, and the masks of its lesions."""
    drawing = draw_photograph(0, Grade.SEVERE, size=FRAME)
    hr = image_to_tensor(crop_to_frame(drawing.photograph, drawing.fov, FRAME))[None]
    masks = [torch.from_numpy(crop_mask(mask, drawing.fov, FRAME)) for mask in drawing.lesion_masks]
    return hr, (torch.stack(masks)[None] > REGION_THRESHOLD).float()


if __name__ == "__main__":
    _run_steps(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
