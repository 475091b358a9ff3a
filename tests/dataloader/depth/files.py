"""Small folders in the layouts that depth completion is trained on, and a tiny Marigold."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat


def photo(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_photo(path: Path, seed: int, height: int = 48, width: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(seed, height, width)).save(path)


def write_npy(path: Path, array: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def write_sync(root: Path, height: int = 48, width: int = 64) -> list[str]:
    """Four NYU `sync` photos of two classes, with the sensor depth that lies beside them."""
    names = [f"{category}/rgb_{number:05d}" for category in ("bathroom", "study") for number in (0, 7)]
    for seed, name in enumerate(names):
        write_photo(root / f"{name}.jpg", seed, height, width)
        sensor = np.full((height, width), 1500, np.uint16)
        Image.fromarray(sensor).save(root / f"{name.replace('rgb', 'sync_depth')}.png")
    return names


def relief(height: int = 48, width: int = 64) -> NDArray[np.float32]:
    """Relative depth: a slope with a block in front of it."""
    depth = np.tile(np.linspace(0.5, 1, width, dtype=np.float32), (height, 1))
    depth[height // 4 : height // 2, width // 4 : width // 2] = 0.1
    return depth


def write_mats(folder: Path, count: int = 4) -> tuple[Path, Path]:
    """A labelled .mat of version 7.3 and a splits .mat, by which photos 2 and `count` are tests."""
    labelled, splits = folder / "labelled.mat", folder / "splits.mat"
    scenes = ["bathroom", "living_room", "study", "home_office"][:count]
    with h5py.File(labelled, "w") as file:
        rng = np.random.default_rng(0)
        slope = np.linspace(60, 200, 640)[:, None] - np.linspace(0, 50, 480)
        tints = rng.uniform(0, 50, (count, 3, 1, 1))
        file["images"] = (slope + tints).astype(np.uint8)  # smooth: JPEG keeps it
        depth = rng.uniform(0.5, 9, (count, 640, 480)).astype(np.float32)
        depth[:, :20] = 0
        file["rawDepths"] = depth
        places = []
        for i, scene in enumerate(scenes):
            file[f"#refs#/{i}"] = np.array([[ord(letter)] for letter in scene], np.uint16)
            places.append(file[f"#refs#/{i}"].ref)
        file.create_dataset("sceneTypes", data=np.array([places], h5py.ref_dtype), dtype=h5py.ref_dtype)
    savemat(splits, {"testNdxs": np.array([[count], [2]]), "trainNdxs": np.array([[1], [3]])})
    return labelled, splits


def write_marigold(folder: Path, seed: int = 0, prediction_type: str = "depth") -> Path:
    """A Marigold pipeline with random weights in the format of `diffusers`; sizes are multiples of 2."""
    from diffusers import AutoencoderKL, DDIMScheduler, MarigoldDepthPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    autoencoder = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    text = CLIPTextConfig(
        vocab_size=3,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    words = folder / "words"
    words.mkdir(parents=True)
    (words / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(str(words), model_max_length=8)
    pipeline = MarigoldDepthPipeline(
        unet, autoencoder, DDIMScheduler(), CLIPTextModel(text), tokenizer, prediction_type=prediction_type
    )
    pipeline.save_pretrained(str(folder / "pipeline"))
    return folder / "pipeline"
