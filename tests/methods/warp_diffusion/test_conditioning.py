"""What training hides, and what sampling's null condition lacks."""

from __future__ import annotations

import pytest
import torch

from methods.warp_diffusion.conditioning import Condition, draw_dropped, hide
from methods.warp_diffusion.model import SourceCode
from methods.warp_diffusion.pose_encoding import relative_pose
from tests.methods.warp_diffusion.tiny import room_views, tiny_condition, tiny_config, tiny_model

# below 0.05, in [0.05, 0.10), in [0.10, 0.15), above
UNIFORM = torch.tensor([0.0, 0.049, 0.05, 0.099, 0.1, 0.149, 0.15, 0.9])
TEXT = torch.tensor([True, True, True, True, False, False, False, False])
IMAGE = torch.tensor([False, False, True, True, True, True, False, False])
NEVER = torch.zeros(8, dtype=torch.bool)


def test_the_original_hides_embedding_and_latents_and_nothing_else() -> None:
    dropped = draw_dropped(UNIFORM, "original")
    assert dropped.embedding.tolist() == TEXT.tolist()
    assert dropped.source.tolist() == IMAGE.tolist()
    assert dropped.token.tolist() == dropped.warp.tolist() == NEVER.tolist()


def test_joint_dropout_hides_what_the_null_condition_lacks() -> None:
    dropped = draw_dropped(UNIFORM, "joint")
    assert dropped.token.tolist() == TEXT.tolist()
    assert dropped.source.tolist() == dropped.warp.tolist() == IMAGE.tolist()
    assert dropped.embedding.tolist() == NEVER.tolist()


def test_each_third_is_five_percent() -> None:
    dropped = draw_dropped((torch.arange(10_000) + 0.5) / 10_000, "joint")
    counts = [
        (dropped.token & ~dropped.warp),
        (dropped.token & dropped.warp),
        (~dropped.token & dropped.warp),
    ]
    assert [int(count.sum()) for count in counts] == [500, 500, 500]


def test_hide_zeroes_rows_of_any_shape() -> None:
    values = torch.ones(3, 2, 4, 4, dtype=torch.bfloat16)
    hidden = hide(values, torch.tensor([True, False, True]))
    assert hidden.dtype == torch.bfloat16
    assert hidden.sum((1, 2, 3)).tolist() == [0, 32, 0]


@pytest.mark.parametrize("kind", ["joint", "original"])
@torch.no_grad()
def test_the_model_is_told_what_is_left(kind: str) -> None:
    """Hidden embeddings still pass through the projection with the pose; hidden tokens are nothing."""
    model = tiny_model(tiny_config(encoder=True, dropout=kind))
    views = room_views(4)
    code = model.encode_source(views.images * 2 - 1)
    pose = relative_pose(views.cameras, views.cameras, 1.0)
    warp = torch.randn(4, 3, 16, 16)
    given = model.condition(code, pose, warp)
    dropped = draw_dropped(torch.tensor([0.0, 0.07, 0.12, 0.5]), kind)  # type: ignore[arg-type]
    hidden = model.hidden_condition(code, pose, warp, dropped)
    blind = model.condition(SourceCode(code.embedding * 0, code.latents), pose, warp).token
    without_text = torch.zeros_like(blind) if kind == "joint" else blind
    for i, text_hidden in enumerate([True, True, False, False]):
        torch.testing.assert_close(hidden.token[i], without_text[i] if text_hidden else given.token[i])
    latents = code.latents.shape[1]
    for i, image_hidden in enumerate([False, True, True, False]):
        assert torch.equal(hidden.channels[i, :latents], given.channels[i, :latents] * (not image_hidden))
        warp_hidden = image_hidden and kind == "joint"
        assert torch.equal(hidden.channels[i, latents:], warp[i] * (not warp_hidden))
    if kind == "joint":  # a sample that loses both has the null condition
        assert torch.equal(hidden.token[1], given.null().token[1])
        assert torch.equal(hidden.channels[1], given.null().channels[1])


def test_null_and_parts_of_conditions() -> None:
    condition = tiny_condition(tiny_model(tiny_config()), 3)
    null = condition.null()
    assert (len(null), float(null.token.abs().max()), float(null.channels.abs().max())) == (3, 0, 0)
    both = null.joined(condition)
    assert len(both) == 6
    assert torch.equal(both[3:].channels, condition.channels)
    assert torch.equal(condition[torch.tensor([2, 0])].token, condition.token[[2, 0]])
    assert isinstance(condition[1:], Condition)
