"""`WarpDiffusion`: one photo -> new views by its depth warp and latent diffusion."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.pairs import PairData, PairSet
from dataloader.scene import Batch, Scene
from engine.config import DataConfig, Experiment, TrainingConfig
from engine.method import Evaluation, Method, Optimization
from engine.metrics import ImageMetrics
from engine.schedule import learning_rate_schedule
from engine.weights import assign, put
from geometry.cameras import Cameras
from geometry.selection import rank_views
from geometry.views import Rendering, Views
from methods.warp_diffusion.arguments import add_arguments, apply_arguments
from methods.warp_diffusion.best_frame import best_frame
from methods.warp_diffusion.composite import keep_visible, merge_pixels
from methods.warp_diffusion.conditioning import Condition
from methods.warp_diffusion.config import WarpDiffusionConfig
from methods.warp_diffusion.data import PairSample, PairSamples
from methods.warp_diffusion.model import LatentDiffusion, SourceCode
from methods.warp_diffusion.noise import initial_noise, step_noise
from methods.warp_diffusion.pose_encoding import relative_pose, zeronvs_pose
from methods.warp_diffusion.sampling import DrawNoise
from methods.warp_diffusion.schedule import warm_up_rate
from methods.warp_diffusion.warps import LiftedPhotos, Warps, fit_views, to_canvas
from methods.warp_diffusion.weights import build_empty, read_weights, report_misfit, widen_to, write_diffusers

_PROJECTION_RATE = 10.0  # of the learning rate, for `cc_projection` (5.4)


@dataclass
class PhotoState:
    """Source photos as the networks and the warps need them. drawn: views rendered so far."""

    photos: LiftedPhotos
    code: SourceCode | None
    drawn: int = 0


class WarpDiffusion(Method):
    """MegaScenes' warp-conditioned diffusion model and its ZeroNVS variants (specs/warp_diffusion).

    model: the networks; None where there are no weights, and then only warps can be had (`missing` says why).
    """

    Config = WarpDiffusionConfig
    trains = True
    weights_hint = "published weights: python scripts/download.py weights --help"

    def __init__(
        self, config: WarpDiffusionConfig, model: LatentDiffusion | None = None, missing: str = ""
    ) -> None:
        super().__init__()
        self.config, self.missing = config, missing
        self.model = model

    @classmethod
    def create(cls, config: WarpDiffusionConfig, scene: Scene | PairData | None = None) -> WarpDiffusion:
        """The networks without weights: `initialise` or a checkpoint brings them."""
        return cls(config, build_empty(config))

    @classmethod
    def without_weights(cls, config: Any, scene: Any, missing: str) -> WarpDiffusion:
        return cls(config, None, missing)

    add_arguments = staticmethod(add_arguments)
    apply_arguments = staticmethod(apply_arguments)

    @classmethod
    def open(cls, args: argparse.Namespace, experiment: Experiment) -> Scene | PairData:
        from methods.warp_diffusion.inputs import open_input

        return open_input(args, experiment, super().open)

    @property
    def networks(self) -> LatentDiffusion:
        """The networks. Raises UserError where there are no weights."""
        if self.model is None:
            raise UserError(self.missing)
        return self.model

    # Weights

    def initialise(self) -> None:
        if self.config.finetune:
            weights = read_weights(Path(self.config.finetune), self.config)
            widen_to(weights, self)
            assign(self, weights, Path(self.config.finetune))
            return
        self.model = LatentDiffusion(self.config)
        self.model.start()
        self.load_frozen()

    def load_frozen(self) -> None:
        names = {name for name, p in self.named_parameters() if not p.requires_grad}
        if not names:
            return
        place = self.config.pretrained or self.config.finetune
        if not place:
            raise UserError(
                "model.pretrained names no checkpoint to take the autoencoder and the image encoder from"
            )
        weights = read_weights(Path(place), self.config)
        known = {name: weights[name] for name in names if name in weights}
        missing = sorted(names - known.keys())
        if missing:
            raise UserError(f"{place} lacks {missing[0]} and {len(missing) - 1} more: it fits another model")
        widen_to(known, self)
        own = self.state_dict(keep_vars=True)
        for name, value in known.items():
            if value.shape != own[name].shape:
                raise UserError(
                    f"{place} fits another model: {name} is {list(value.shape)} there, "
                    f"{list(own[name].shape)} here"
                )
        put(self, known)

    def load_original(self, folder: Path) -> dict[str, Tensor] | None:
        weights = read_weights(folder, self.config)
        report_misfit(weights, self, self.config.autoencoder.latent_channels, folder)
        return weights

    def export(self, folder: Path) -> list[Path]:
        """One folder per network, as `diffusers` and `transformers` write them."""
        return write_diffusers(self.networks, folder)

    def prepare_inference(self) -> None:
        model, settings = self.networks.eval().requires_grad_(False), self.config.sampling
        model.to(memory_format=torch.channels_last)
        model.to(getattr(torch, settings.dtype))
        if settings.compile:
            model.unet = torch.compile(model.unet)

    # Training

    def samples(self, scene: Any, data: DataConfig) -> PairSamples:
        if isinstance(scene, Scene):
            raise UserError("warp_diffusion is trained on image pairs: set data.root to a set of pairs")
        pairs: PairSet = scene.split(data.source)
        return PairSamples(pairs, self.config)

    def forward(self, sample: PairSample, step: int) -> dict[str, Tensor]:
        """Mean squared error of the predicted noise."""
        model = self.networks
        with torch.no_grad():
            warp = self.warp_channels(sample.warp, sample.small_warp, sample.coverage)
        return model.losses(sample.target, sample.source, sample.pose, warp, sample.draws)

    def warp_channels(
        self, warp: Tensor | None, small: Tensor | None, coverage: Tensor | None
    ) -> Tensor | None:
        """The warp's channels from canvases of any of the sizes that `PairSample` has."""
        if self.config.warp != "latent":
            return self.networks.warp_channels(small, None)
        assert coverage is not None
        side = self.config.latent_size
        return self.networks.warp_channels(
            warp, torch.nn.functional.adaptive_avg_pool2d(coverage, (side, side))
        )

    def optimization(self, config: TrainingConfig) -> Optimization:
        model = self.networks
        groups = [{"params": list(model.unet.parameters()), "lr": config.learning_rate}]
        if not self.config.freeze_projection:
            rate = config.learning_rate * _PROJECTION_RATE
            groups.append({"params": list(model.cc_projection.parameters()), "lr": rate})
        schedule, warmup = learning_rate_schedule(config), config.warmup_steps
        return Optimization(
            torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
            lambda step: warm_up_rate(step, warmup) if step < warmup else schedule(step),
        )

    def view_size(self) -> tuple[int, int]:
        return self.config.resolution, self.config.resolution

    def preview(self, sample: PairSample) -> list[list[Tensor]]:
        """Per pair: source, target, warp, and a sample of ours."""
        warp = self.warp_channels(sample.warp, sample.small_warp, sample.coverage)
        condition = self.networks.condition(self.networks.encode_source(sample.source), sample.pose, warp)
        images = self.draw(condition, sample.noise[None])[0]
        shown = [sample.source, sample.target, sample.warp if sample.warp is not None else sample.small_warp]
        columns = [((column + 1) / 2).cpu() for column in shown if column is not None]
        return [[column[i] for column in columns] + [images[i].cpu()] for i in range(len(images))]

    # Rendering

    def encode(self, source: Views, reuse: PhotoState | None = None) -> PhotoState:
        """The photos' codes, once. reuse: a state whose targets shall see these views too, lifted."""
        views = fit_views(source, self.config.resolution)
        photos = LiftedPhotos(views, self.config)
        if reuse is not None:
            for j in range(len(views)):
                reuse.photos.add(photos.mesh(j))
            return reuse
        if views.depth is None:
            raise UserError(
                "warp_diffusion needs depth: give --depth FILE, a depth model, or a scene that has some"
            )
        if self.model is None:
            return PhotoState(photos, None)
        with torch.no_grad():
            return PhotoState(photos, self.model.encode_source(photos.padded()))

    def render(self, state: PhotoState, cameras: Cameras) -> Rendering:
        """One view per camera [N]: of the samples drawn, the one closest to the warp.

        extras: 'samples' [S, N, 3, H, W], 'warp' [N, 3, H, W], 'coverage' [N, 1, H, W].
        """
        sources = rank_views(state.photos.views.cameras, cameras)[:, 0].tolist()
        return self.render_warped(state, sources, cameras, state.photos.warp(sources, cameras))

    @torch.no_grad()
    def render_warped(
        self, state: PhotoState, sources: list[int], cameras: Cameras, warps: Warps
    ) -> Rendering:
        """As `render`, from given photos and their warps to the cameras."""
        device = warps.image.device
        condition = self.condition(state, sources, cameras, warps)
        shape, settings = self.config.latent_shape, self.config.sampling
        noise = initial_noise(state.photos, sources, cameras, shape, settings, state.drawn).to(device)
        views = range(state.drawn, state.drawn + len(cameras))
        fresh = step_noise(views, settings.samples, shape, settings.seed)
        seen = to_canvas(warps.full(), warps.canvas)
        samples = self.draw(condition, noise, fresh, seen, warps.padded_coverage())
        samples = self._fit(warps.canvas.cut(samples), cameras)
        state.drawn += len(cameras)
        warp, coverage = self._fit(warps.image, cameras), self._fit(warps.coverage, cameras)
        if settings.composite in ("pixels", "both"):
            samples = merge_pixels(samples, self._fit(warps.full(), cameras), coverage)
        covered = (coverage >= 0.5).float()
        best = [best_frame(samples[:, n], warp[n], covered[n]) for n in range(len(cameras))]
        image = samples[best, torch.arange(len(cameras), device=device)]
        return Rendering(image, extras={"samples": samples, "warp": warp, "coverage": coverage})

    def condition(self, state: PhotoState, sources: list[int], cameras: Cameras, warps: Warps) -> Condition:
        """What the network is told of views from photos `sources[i]` at cameras [N]."""
        code, device = state.code, warps.image.device
        if code is None:
            raise UserError(self.missing)
        small = warps.small(self.config.latent_size) if self.config.warp == "pixels" else None
        warp = warps.shown() if self.config.warp == "latent" else None
        channels = self.warp_channels(warp, small, warps.padded_coverage())
        pose = self.poses(state.photos, sources, cameras).to(device)
        return self.networks.condition(code[torch.tensor(sources, device=device)], pose, channels)

    def poses(self, photos: LiftedPhotos, sources: list[int], cameras: Cameras) -> Tensor:
        """The cameras [N] relative to the photos `sources`, as the network is told of them: [N, 19]."""
        encode = relative_pose if self.config.pose == "relative" else zeronvs_pose
        scale = torch.tensor([photos.scales[source] for source in sources], dtype=torch.float64)
        home = photos.views.cameras[torch.tensor(sources)]
        return encode(home, cameras, scale.to(cameras.c2w.device))

    def draw(
        self,
        condition: Condition,
        noise: Tensor,
        fresh: DrawNoise | None = None,
        seen: Tensor | None = None,
        coverage: Tensor | None = None,
    ) -> Tensor:
        """Canvases [S, N, 3, S, S] in [0, 1] from the conditions of N views and unit noise [S, N, C, h, w].

        fresh: unit noise for samplers that add some. seen, coverage: canvases [N, 3, S, S] in [0, 1] and [N,
        1, S, S] of what the warp shows, for compositing in the latents.
        """
        count, settings = len(noise), self.config.sampling
        repeated = Condition(condition.token.repeat(count, 1, 1), condition.channels.repeat(count, 1, 1, 1))
        adjust = None
        if settings.composite in ("latent", "both") and seen is not None and coverage is not None:
            adjust = keep_visible(self.networks, seen * 2 - 1, coverage)
        latents = self.networks.sample(repeated, noise.flatten(0, 1), settings, fresh, adjust)
        images = self.networks.decode(latents, settings.batch)
        return ((images + 1) / 2).clamp(0, 1).unflatten(0, noise.shape[:2])

    def _fit(self, images: Tensor, cameras: Cameras) -> Tensor:
        """Images [..., C, h, w] at the size of the cameras."""
        size = (cameras.height, cameras.width)
        if images.shape[-2:] == size:
            return images
        flat = images.reshape(-1, *images.shape[-3:])
        flat = torch.nn.functional.interpolate(flat, size=size, mode="bilinear", antialias=True)
        return flat.reshape(*images.shape[:-2], *size)

    # Evaluation and video

    def evaluate_pairs(self, batch: Batch, metrics: ImageMetrics) -> Evaluation:
        from methods.warp_diffusion.pair_evaluation import evaluate_pairs

        return evaluate_pairs(self, batch, metrics)

    def film(self, state: PhotoState, cameras: Cameras, folder: Path) -> Iterator[Rendering]:
        from methods.warp_diffusion.video import film

        return film(self, state, cameras, folder)

    def write_sources(self, state: PhotoState, folder: Path) -> list[Path]:
        from methods.warp_diffusion.video import write_sources

        return write_sources(state.photos, folder)
