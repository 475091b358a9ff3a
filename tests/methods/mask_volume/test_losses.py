"""What is minimised: which terms a name has, where gradients go, and what a loss needs to be given."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from methods.mask_volume.losses import Criterion, LossConfig, LossName, l1_ssim, mask_term, masked_l1

TERMS: dict[LossName, set[str]] = {
    "mse": {"mse"},
    "l1": {"l1"},
    "vgg": {"vgg"},
    "vgg_only": {"vgg"},
    "full_loss": {"vgg", "mask", "sparse"},
    "no_mask": {"vgg", "sparse"},
    "masked_l1": {"masked_l1"},
    "l1_ssim": {"l1_ssim"},
    "l1_ssim_mask": {"l1_ssim", "mask"},
}


def batch(seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=draw)

    mask = torch.zeros(2, 1, 16, 20)
    mask[:, :, 4:9, 5:12] = 1
    return {
        "rgb": uniform(2, 3, 16, 20) * 1.2 - 0.1,
        "target": uniform(2, 3, 16, 20),
        "alpha": uniform(2, 1, 16, 20),
        "mask": mask,
        "volume": uniform(2, 1, 4, 16, 20),
    }


def criterion(name: LossName, **settings: float) -> Criterion:
    """A criterion whose VGG is the mean squared difference."""
    made = Criterion(LossConfig(name, **settings))  # type: ignore[arg-type]
    made._network = torch.nn.MSELoss()
    return made


@pytest.mark.parametrize("name", get_args(LossName))
def test_a_loss_is_the_weighted_sum_of_its_terms(name: LossName) -> None:
    given = batch()
    given["rgb"].requires_grad_()
    found = criterion(name, mask=0.5, sparse=0.25).losses(**given)
    terms = found.keys() - {"loss", "psnr"}
    assert terms == TERMS[name]
    weights = {"mask": 0.5, "sparse": 0.25}
    total = sum(weights.get(term, 1.0) * found[term] for term in terms)
    torch.testing.assert_close(found["loss"], total)
    found["loss"].backward()
    assert given["rgb"].grad is not None
    assert given["rgb"].grad.abs().max() > 0
    assert not found["psnr"].requires_grad


def test_equal_pictures_cost_nothing() -> None:
    given = batch()
    for name in ("mse", "l1", "masked_l1", "l1_ssim"):
        loss = criterion(name).losses(given["target"], given["target"], mask=given["mask"])["loss"]  # type: ignore[arg-type]
        assert float(loss) == pytest.approx(0, abs=1e-6)


def test_similarity_is_not_judged_in_half_precision() -> None:
    given = batch()
    close = given["target"] + 0.02 * (given["rgb"] - given["target"])
    exact = l1_ssim(close, given["target"])
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(l1_ssim(close, given["target"]), exact)


def test_the_mask_term_wants_alpha_where_something_moves_and_nowhere_else() -> None:
    mask = batch()["mask"]
    assert float(mask_term(mask, mask)) == 0
    assert float(mask_term(torch.zeros_like(mask), mask)) == pytest.approx(0.5)
    assert float(mask_term(torch.ones_like(mask), mask)) == pytest.approx(0.5)
    near = torch.zeros_like(mask)
    near[:, :, 2:11, 3:14] = 1  # two pixels more on every side
    assert float(mask_term(near, mask)) == 0
    assert float(mask_term(torch.ones_like(mask), torch.zeros_like(mask))) == pytest.approx(0.5)


def test_masked_l1_joins_each_image_with_its_own_mask() -> None:
    given = batch()
    rgb, target, mask = given["rgb"], given["target"], given["mask"].clone()
    mask[1] = 0
    torch.testing.assert_close(masked_l1(rgb, target, mask), masked_l1(rgb[:1], target[:1], mask[:1]))
    assert float(masked_l1(rgb, target, torch.zeros_like(mask))) == 0


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("masked_l1", "mask", "masked_l1 needs masks of what moves"),
        ("full_loss", "mask", "full_loss needs masks of what moves"),
        ("l1_ssim_mask", "alpha", "l1_ssim_mask needs a mask volume"),
        ("no_mask", "volume", "no_mask needs a mask volume, and stage 1 has none"),
    ],
)
def test_what_a_loss_is_not_given_is_named(name: LossName, missing: str, message: str) -> None:
    given = {key: value for key, value in batch().items() if key != missing}
    with pytest.raises(UserError, match=f"model.loss.name {message}"):
        criterion(name).losses(**given)


@pytest.mark.parametrize("name", get_args(LossName))
def test_it_says_what_it_needs(name: LossName) -> None:
    made = criterion(name)
    assert made.needs_mask == (name in ("masked_l1", "full_loss", "l1_ssim_mask"))
    assert made.needs_volume == (name in ("full_loss", "no_mask", "l1_ssim_mask"))


def test_missing_weights_are_one_line_with_the_command(tmp_path: Path) -> None:
    Criterion(LossConfig("l1")).prepare()
    with pytest.raises(
        UserError, match=r"no vgg19_bn weights in .*models\.vgg19_bn.* in model\.loss\.weights"
    ):
        Criterion(LossConfig("vgg", weights=str(tmp_path))).prepare()


def test_weights_below_zero_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.loss\.sparse"):
        LossConfig(sparse=-0.1)
