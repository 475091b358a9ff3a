"""Chunk folders made from chunk folders: compressed, rescaled, with latents; runs may be killed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.cli import progress
from common.errors import UserError
from dataloader.framing import Framing, frame_image
from dataloader.re10k.chunks import SUFFIXES, Example, convert_chunk, read_chunk
from dataloader.re10k.examples import as_tensor, camera_rows, encode, encoded, scene_of
from dataloader.re10k.pack import Packed, Shard, SplitWriter, check_meta
from dataloader.re10k.roots import Root
from dataloader.re10k.scenes import expected_size
from dataloader.scene import ImageSize

Change = Callable[[Example, str], Example]  # scene, what messages call its chunk -> scene


def convert_root(
    source: Root,
    target: Path,
    split: str,
    change: Change,
    meta: dict[str, Any],
    shard: Shard = Shard(),  # noqa: B008 (frozen)
) -> Packed:
    """Write every chunk of a split anew, each scene changed; chunks that are there are kept.

    meta: content of the new `meta.json`. Scenes that `change` refuses are left out and named. Raises
    UserError where the target is the source, or holds something else.
    """
    if target.resolve() == source.file().resolve():
        raise UserError(f"{target} is the folder to be read: choose another to write to")
    check_meta(target, meta)
    index = source.index(split)
    names = sorted({Path(name).stem for name in index.values()})
    suffix, writer, done = source.suffix(split, min(index.values())), SplitWriter(target, split), Packed()
    for stem in progress(shard.of(names), split, unit="chunk"):
        if writer.is_whole(stem):
            done.present += sum(Path(name).stem == stem for name in index.values())
            continue
        kept = []
        for scene in read_chunk(source.file(split, stem + suffix)):
            try:
                kept.append(change(scene, f"{source.place}/{split}/{stem}{suffix}"))
            except UserError as error:
                done.left_out.append(str(error))
        writer.write(kept, stem, suffix)
        done.chunks, done.scenes = done.chunks + 1, done.scenes + len(kept)
    if not writer.keys():
        raise UserError(f"no scene of {source.place}/{split} is left; the first: {done.left_out[0]}")
    writer.finish(**meta)
    return done


def compress_root(source: Root, target: Path, split: str, shard: Shard = Shard()) -> Packed:  # noqa: B008
    """Write `.torch` chunks as `.bl2`, or the other way round; the content stays bit for bit."""
    index = source.index(split)
    old = source.suffix(split, min(index.values()))
    new = next(suffix for suffix in SUFFIXES if suffix != old)
    writer, done = SplitWriter(target, split), Packed()
    names = sorted({Path(name).stem for name in index.values()})
    for stem in progress(shard.of(names), split, unit="chunk"):
        keys = [key for key, name in index.items() if Path(name).stem == stem]
        if writer.is_whole(stem):
            done.present += len(keys)
            continue
        convert_chunk(source.file(split, stem + old), target / split / f"{stem}{new}")
        writer.list_keys(keys, stem)
        done.chunks, done.scenes = done.chunks + 1, done.scenes + len(keys)
    writer.finish(**source.meta())
    return done


def rescaled_meta(source: Root, size: ImageSize | None, min_size: int) -> dict[str, Any]:
    """The `meta.json` of rescaled chunks: the new size, and no latents, which would be of the old one.

    size: (height, width) to cover and cut. min_size: of the short side, where the aspect is kept. Raises
    UserError where the source does not say how large its photos are.
    """
    native = expected_size(source.meta(), source.place)
    if native is None and size is None:
        raise UserError(f"{source.place}/meta.json lacks expected_shape: write it as [3, height, width]")
    if size is None:
        height, width = native or (1, 1)
        size = round(height * min_size / min(height, width)), round(width * min_size / min(height, width))
    return {"expected_shape": [3, *size]}


def rescale(
    scene: Example, source: str, size: ImageSize, expected: ImageSize | None, quality: int
) -> Example:
    """A scene whose photos cover (height, width) and are cut to it, intrinsics in step.

    expected: size the photos must have. quality: of JPEG photos; PNG stay PNG. Raises UserError for scenes
    with unreadable photos or photos of other sizes.
    """
    name = f"{source}, scene {scene['key']}"
    opened = scene_of(scene, source, expected, max_fov=180)
    cameras = opened.cameras()
    framing = Framing(*size)
    images, camera = [], cameras
    for i, record in enumerate(opened.records):
        pixels, camera = frame_image(record.load(), cameras, framing)
        images.append(as_tensor(encode(pixels, _kind(scene, i, name), quality)))
    changed = {key: value for key, value in scene.items() if key != "vae_latents"}
    return {**changed, "images": images, "cameras": camera_rows(camera)}


def _kind(scene: Example, index: int, source: str) -> str:
    """'JPEG' or 'PNG', as the photo is stored; other kinds become PNG."""
    with Image.open(io.BytesIO(encoded(scene, index, source).data)) as image:
        return "JPEG" if image.format == "JPEG" else "PNG"


class Encoder:
    """A VAE that turns photos into latents.

    name: hub id or folder. subfolder: of the VAE in it. scaled: give it values in [-1, 1], as it was trained
    with; False gives [0, 1], as the unofficial implementation does. batch: photos at a time.
    """

    def __init__(self, name: str, subfolder: str, device: torch.device, scaled: bool, batch: int) -> None:
        from diffusers import AutoencoderKL

        try:
            vae = AutoencoderKL.from_pretrained(name, subfolder=subfolder or None)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"--vae {name}: no AutoencoderKL can be loaded ({reason})") from None
        self.name, self._scaled, self._batch, self._device = name, scaled, batch, device
        self._vae = vae.eval().requires_grad_(False).to(device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [N, C, h, w] bfloat16 of photos [N, 3, H, W] in [0, 1]."""
        means, deviations = [], []
        for part in images.split(self._batch):
            given = (2 * part - 1 if self._scaled else part).to(self._device)
            posterior = self._vae.encode(given).latent_dist
            means.append(posterior.mean.bfloat16().cpu())
            deviations.append(posterior.std.bfloat16().cpu())
        return torch.cat(means), torch.cat(deviations)

    def meta(self, source: Root) -> dict[str, Any]:
        """The `meta.json` of chunks with these latents."""
        extra = {"vae_encoded": True, "vae_hf_model_id": self.name}
        return {**source.meta(), **extra, **({"vae_input_scaled": True} if self._scaled else {})}


def add_latents(scene: Example, source: str, encoder: Encoder, expected: ImageSize | None) -> Example:
    """A scene with `vae_latents`. Raises UserError for scenes with unreadable photos or of other sizes."""
    opened = scene_of(scene, source, expected, max_fov=180)
    pixels = np.stack([record.load() for record in opened.records])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = encoder(images)
    return {**scene, "vae_latents": {"mean": mean, "std": std}}
