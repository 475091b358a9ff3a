"""`WarpDiffusion` as trainer, evaluator and video script use it, on a tiny model of procedural rooms."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import methods
from common.errors import UserError
from dataloader.pair_sets import PairSizes, RoomPairData
from engine import checkpoint
from engine.config import Experiment, resolve
from engine.metrics import ImageMetrics
from engine.pairs import pair_batch
from engine.tensor_files import read_safetensors
from engine.trainer import Result, train
from geometry.views import Views
from methods.warp_diffusion.config import WarpDiffusionConfig
from methods.warp_diffusion.method import WarpDiffusion
from methods.warp_diffusion.noise import initial_noise, source_cells
from methods.warp_diffusion.pair_evaluation import draw_pairs
from tests.methods.warp_diffusion.test_data import room_pairs
from tests.methods.warp_diffusion.tiny import room_views, tiny_config, tiny_method

# train/loss of the first 20 steps: a change here changes every training run.
GOLDEN = [
    0.376244, 0.376155, 0.713477, 0.503153, 0.450224, 0.595513, 0.568039, 0.31101, 0.19906, 0.65963,
    0.4773, 0.19805, 0.658177, 0.228966, 0.511881, 0.410737, 0.636136, 0.595285, 0.711307, 0.175672,
]  # fmt: skip


def toy(**changes: Any) -> Experiment:
    """The toy experiment, smaller. changes: of `training`."""
    training = {
        "steps": 20, "batch_size": 2, "learning_rate": 1e-3, "log_every": 1, "save_every": 12, "seed": 1,
        "warmup_steps": 4, "ema_decay": 0.9, "tracker": "none", **changes,
    }  # fmt: skip
    unet = {"width": 32, "multipliers": [1, 1], "blocks": 1, "attention": [2], "heads": 2, "context": 32}
    model = {
        "warp": "latent", "resolution": 32, "autoencoder": {"kind": "pixels", "patch": 2}, "unet": unet,
        "image_encoder": {"layers": 0}, "prediction": "v_prediction",
    }  # fmt: skip
    raw = {
        "method": "warp_diffusion",
        "model": model,
        "data": {"root": "builtin:room_pairs"},
        "training": training,
    }
    return resolve(raw, WarpDiffusionConfig)


def run(folder: Path, experiment: Experiment, resume: str | None = None) -> Result:
    method = methods.create_method(experiment)
    config = experiment.model
    pairs = RoomPairData(PairSizes(config.resolution, config.latent_size), 16)
    samples = method.samples(pairs, experiment.data)
    return train(method, samples, experiment, folder, checkpoint.find_start(folder, resume))


def losses(result: Result) -> list[float]:
    return [record["train/loss"] for record in result.history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, toy())


def test_golden_losses(whole: tuple[Path, Result]) -> None:
    assert losses(whole[1]) == pytest.approx(GOLDEN, rel=1e-3)


def test_a_resumed_run_is_bit_equal(whole: tuple[Path, Result], tmp_path: Path) -> None:
    shutil.copytree(whole[0] / "iter_12", tmp_path / "iter_12")
    assert losses(run(tmp_path, toy(), "latest")) == losses(whole[1])[12:]
    for name in ("model.safetensors", "ema.safetensors"):
        a, b = (read_safetensors(folder / "iter_20" / name) for folder in (whole[0], tmp_path))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_average_lags_behind_and_is_what_renders(whole: tuple[Path, Result]) -> None:
    place = whole[0] / "iter_20"
    raw, average = (read_safetensors(place / name) for name in ("model.safetensors", "ema.safetensors"))
    assert raw.keys() == average.keys()
    moved = [name for name in raw if not torch.equal(raw[name], average[name])]
    assert len(moved) > 0.9 * len(raw)
    method = methods.create_method(toy())
    found = checkpoint.find(whole[0], "latest")
    assert found is not None
    checkpoint.load_for_inference(method, found)
    assert torch.equal(method.state_dict()["model.unet.conv_in.weight"], average["model.unet.conv_in.weight"])


def test_rates_and_groups() -> None:
    """Ten times the rate for the projection, unless it is frozen; warm-up from 1e-6."""
    experiment = toy(learning_rate=1e-4, warmup_steps=100)
    for freeze in (False, True):
        method = tiny_method(tiny_config(freeze_projection=freeze))
        optimization = method.optimization(experiment.training)
        rates = [group["lr"] for group in optimization.optimizer.param_groups]
        assert rates == pytest.approx([1e-4] if freeze else [1e-4, 1e-3])
    assert [optimization.schedule(step) for step in (0, 50, 100, 500)] == pytest.approx(
        [1e-6, 0.5, 1, 1], rel=1e-4
    )


@pytest.mark.parametrize("freeze", [False, True])
def test_the_projection_learns_unless_it_is_frozen(freeze: bool) -> None:
    method = tiny_method(tiny_config(warp="pixels", freeze_projection=freeze)).train()
    samples = method.samples(RoomPairs(), toy().data)
    method(samples.draw(0, 0), 0)["loss"].backward()
    gradient = method.networks.cc_projection.weight.grad
    assert (gradient is None) if freeze else (gradient is not None and bool(gradient.abs().max() > 0))
    assert method.networks.unet.conv_in.weight.grad is not None


class RoomPairs:
    """The rooms under every split's name."""

    name = "rooms"

    def split(self, name: str) -> Any:
        return room_pairs("test")


# Rendering


@pytest.fixture(scope="module")
def photos() -> Views:
    return room_views(4)


def rendered(method: WarpDiffusion, photos: Views, **sampling: Any) -> Tensor:
    """All samples [S, N, 3, H, W] of the views after the first photo."""
    method.config.sampling = replace(method.config.sampling, **sampling)
    state = method.encode(photos[:1])
    return method.render(state, photos.cameras[1:]).extras["samples"]


def test_a_photo_is_encoded_once_for_any_number_of_views(
    photos: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = tiny_method(tiny_config(encoder=True))
    calls: list[int] = []
    encode = method.networks.encode_source

    def counted(images: Tensor) -> Any:
        calls.append(len(images))
        return encode(images)

    monkeypatch.setattr(method.networks, "encode_source", counted)
    state = method.encode(photos[:1])
    first = method.render(state, photos.cameras[1:3])
    second = method.render(state, photos.cameras[3:])
    assert calls == [1]
    assert (first.image.shape, second.image.shape) == ((2, 3, 32, 32), (1, 3, 32, 32))
    assert state.drawn == 3
    together = tiny_method(tiny_config(encoder=True))
    torch.testing.assert_close(
        together.render(together.encode(photos[:1]), photos.cameras[1:]).image,
        torch.cat([first.image, second.image]), atol=1e-3, rtol=0,
    )  # fmt: skip


def test_the_sample_nearest_to_the_warp_is_shown(photos: Views) -> None:
    method = tiny_method(tiny_config(sampling={"samples": 4}))
    rendering = method.render(method.encode(photos[:1]), photos.cameras[1:])
    samples, warp = rendering.extras["samples"], rendering.extras["warp"]
    covered = (rendering.extras["coverage"] >= 0.5).float()
    assert samples.shape == (4, 3, 3, 32, 32)
    errors = ((samples - warp) * covered).square().sum((2, 3, 4))
    assert len({round(float(e), 6) for e in errors[:, 0]}) == 4
    for n in range(3):
        assert torch.equal(rendering.image[n], samples[int(errors[:, n].argmin()), n])


def test_noise_of_a_path(photos: Views) -> None:
    """Independent per view, or one for all; the seed decides."""
    method = tiny_method(tiny_config(warp="none"))
    twice = Views(photos.images, photos.cameras[[0, 1, 1, 1]], depth=photos.depth)  # equal targets
    own = rendered(method, twice, noise="independent")
    assert not torch.equal(own[0, 0], own[0, 1])
    shared = rendered(method, twice, noise="shared", samples=2)
    torch.testing.assert_close(shared[:, 0], shared[:, 1], atol=1e-3, rtol=0)
    assert not torch.equal(shared[0, 0], shared[1, 0])
    torch.testing.assert_close(rendered(method, twice, noise="shared", samples=2), shared)
    assert not torch.equal(rendered(method, twice, noise="shared", samples=2, seed=5), shared)


def test_warped_noise_stays_on_the_surface(photos: Views) -> None:
    """From the photo's own camera it is the photo's noise, as far as there is surface."""
    method = tiny_method(tiny_config(sampling={"noise": "warped", "samples": 2}))
    state = method.encode(photos[:1])
    cameras = photos.cameras[[0, 0, 1]]
    noise = initial_noise(state.photos, [0, 0, 0], cameras, (12, 16, 16), method.config.sampling, 5)
    seen, cells = source_cells(state.photos, 0, cameras[:1], 16)
    assert float(seen.float().mean()) > 0.9
    assert torch.equal(cells[seen], torch.arange(256)[seen])
    first, second, moved = noise.flatten(3).unbind(1)
    assert torch.equal(first[..., seen], second[..., seen])
    assert not torch.equal(first[0], first[1])
    if bool((~seen).any()):
        assert not torch.equal(first[..., ~seen], second[..., ~seen])
    there, from_cells = source_cells(state.photos, 0, cameras[2:], 16)
    there &= seen[from_cells]  # noise of what the photo's own view shows
    assert float(there.float().mean()) > 0.5
    assert torch.equal(moved[..., there], first[..., from_cells[there]])
    assert not torch.equal(from_cells[there], torch.arange(256)[there])


@pytest.mark.parametrize("warp", ["none", "pixels", "latent"])
def test_compositing_keeps_what_the_warp_shows(photos: Views, warp: str) -> None:
    method = tiny_method(tiny_config(warp=warp))
    free = rendered(method, photos)
    method.config.sampling.composite = "both"
    rendering = method.render(method.encode(photos[:1]), photos.cameras[1:])
    covered = rendering.extras["coverage"] == 1
    assert float(covered.float().mean()) > 0.3
    difference = (rendering.image - rendering.extras["warp"]).abs() * covered
    assert float(difference.max()) < 1e-6
    assert float(((free[0] - rendering.extras["warp"]).abs() * covered).max()) > 0.1
    method.config.sampling.composite = "latent"
    kept = method.render(method.encode(photos[:1]), photos.cameras[1:])
    patches = torch.nn.functional.avg_pool2d(kept.extras["coverage"], 2).eq(1).float()  # whole latent pixels
    inside = torch.nn.functional.interpolate(patches, scale_factor=2)
    assert float(inside.mean()) > 0.3
    assert float(((kept.image - kept.extras["warp"]).abs() * inside).max()) < 1e-2


def test_later_views_see_the_earlier_ones(photos: Views) -> None:
    """What `encode` is given with a state becomes surface for the targets; the photo's code stays."""
    method = tiny_method(tiny_config())
    state = method.encode(photos[:1])
    before = state.photos.warp([0], photos.cameras[3:]).coverage.mean()
    code = state.code
    assert method.encode(photos[2:], reuse=state) is state
    after = state.photos.warp([0], photos.cameras[3:]).coverage.mean()
    assert len(state.photos.earlier) == 2
    assert float(after) > float(before)
    assert state.code is code
    assert len(state.photos.views) == 1


def test_views_of_any_size_fit_the_network(photos: Views) -> None:
    """Photos and targets of the same aspect, larger than the canvas and with odd padding."""
    views = room_views(3, height=45, width=70)
    method = tiny_method(tiny_config())
    rendering = method.render(method.encode(views[:1]), views.cameras[1:])
    assert rendering.image.shape == (2, 3, 45, 70)
    assert rendering.extras["warp"].shape == (2, 3, 45, 70)


def test_half_precision_samples_nearly_the_same(photos: Views) -> None:
    method = tiny_method(tiny_config(encoder=True))
    single = rendered(method, photos)
    method.config.sampling.dtype = "bfloat16"
    method.prepare_inference()
    half = rendered(method, photos)
    assert half.dtype == torch.float32
    assert float((half - single).abs().mean()) < 0.05


def test_without_depth_or_weights(photos: Views) -> None:
    method = tiny_method(tiny_config())
    with pytest.raises(UserError, match="needs depth: give --depth FILE"):
        method.encode(Views(photos.images, photos.cameras))
    bare = WarpDiffusion.without_weights(tiny_config(), None, "iter_5 does not exist")
    state = bare.encode(photos[:1])
    assert state.code is None
    with pytest.raises(UserError, match="iter_5 does not exist"):
        assert bare.networks


# Pairs


def test_a_pair_is_scored_alike_in_any_batch() -> None:
    pairs = [room_pairs("test").pair(i) for i in range(3)]
    method = tiny_method(tiny_config(warp="latent"))
    together = method.evaluate_pairs(pair_batch(pairs), ImageMetrics()).rows
    for i, pair in enumerate(pairs):
        (alone,) = method.evaluate_pairs(pair_batch([pair]), ImageMetrics()).rows
        assert alone == pytest.approx(together[i], abs=0.02)


@pytest.mark.parametrize("warp", ["none", "pixels", "latent"])
def test_pairs_keep_what_their_warps_show(warp: str) -> None:
    pairs = [room_pairs("test").pair(i) for i in range(2)]
    method = tiny_method(tiny_config(warp=warp, sampling={"composite": "both"}))
    images = draw_pairs(method, pairs, torch.device("cpu"))
    for image, pair in zip(images, pairs, strict=True):
        assert pair.coverage is not None
        assert float(((image - pair.full_warp()).abs() * (pair.coverage == 1)).max()) < 1e-6


def test_pairs_without_warps() -> None:
    """Models that need none do without; what cannot says so in a sentence."""
    bare = [replace(room_pairs("test").pair(0), warp=None, small_warp=None, coverage=None)]
    plain = tiny_method(tiny_config(warp="none"))
    assert draw_pairs(plain, bare, torch.device("cpu")).shape == (1, 3, 32, 32)
    keeping = tiny_config(warp="none", sampling={"composite": "pixels"})
    for method in (tiny_method(keeping), tiny_method(tiny_config())):
        with pytest.raises(UserError, match=f"pair {bare[0].name} has no"):
            draw_pairs(method, bare, torch.device("cpu"))


# Settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling": {"steps": 0}}, r"sampling\.steps is 0"),
        ({"sampling": {"samples": 0}}, r"sampling\.samples is 0"),
        ({"sampling": {"steps": 1001}}, r"sampling\.steps is 1001: the sampler unipc takes 1 to 1000"),
        ({"sampling": {"steps": 501, "sampler": "original"}}, r"steps is 501: .* original takes 2 to 500"),
        ({"sampling": {"steps": 1, "sampler": "original"}}, r"steps is 1: .* original takes 2 to 500"),
        ({"max_angle": 0.0}, r"model\.max_angle is 0"),
        ({"token": "image"}, r"model\.token is image: it needs an image encoder"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_config(**change)
    with pytest.raises(UserError, match=r"model\.resolution is 100: it must be a multiple of 64"):
        WarpDiffusionConfig(resolution=100)


def test_a_fresh_kl_model_needs_its_pretrained_parts() -> None:
    method = WarpDiffusion.create(WarpDiffusionConfig(resolution=64))
    with pytest.raises(UserError, match=r"model\.pretrained names no checkpoint"):
        method.load_frozen()
