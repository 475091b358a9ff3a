"""The image pairs of MegaScenes NVS, read from disk one by one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from common.errors import UserError
from dataloader.canvas import fit_canvas
from dataloader.megascenes.pair_table import PairTable
from dataloader.megascenes.photos import CANVAS, read_canvas
from dataloader.megascenes.places import PhotoFolder, photo_id, warp_name
from dataloader.megascenes.warps import read_warp, warp_canvases
from dataloader.pairs import Pair

Split = Literal["all", "train", "validation", "test"]
VALIDATION_PAIRS = 10_000  # the first so many of the test split are for validation, the rest for the test
SMALL = 32  # pixels: side of the warp that the diffusion network sees beside its latents


def split_rows(table: PairTable, split: Split) -> range:
    """The rows of a table that belong to a split. 'train' and 'all' take the whole table: the training pairs
    have a file of their own.

    Raises UserError when nothing is left.
    """
    rows = range(len(table))
    if split in ("validation", "test"):
        rows = rows[:VALIDATION_PAIRS] if split == "validation" else rows[VALIDATION_PAIRS:]
    if not rows:
        raise UserError(
            f"{table.source} has {len(table)} pairs, the first {VALIDATION_PAIRS} of which are for "
            f"validation: nothing is left for the split {split!r}"
        )
    return rows


class MegaScenesPairs:
    """A `PairSet` of the MegaScenes pairs.

    table: what `open_pairs` returns. photos: where the photos lie. warps: folder of the prepared warps, or
    None for pairs without. size, small: sides of the canvases in pixels. Photos that are padded to `size`
    already are used as they are. Whatever cannot be read is a UserError that names the file: nothing is
    replaced by a black image.
    """

    def __init__(
        self,
        table: PairTable,
        photos: PhotoFolder,
        warps: Path | None = None,
        split: Split = "all",
        size: int = CANVAS,
        small: int = SMALL,
    ) -> None:
        if warps is not None and not warps.is_dir():
            raise UserError(f"{warps} is no folder: make the warps with scripts/megascenes.py prepare-warps")
        self.table, self.photos, self.warps = table, photos, warps
        self.rows = split_rows(table, split)
        self.size, self.small = size, small

    @property
    def has_warps(self) -> bool:
        """Whether there is a folder of warps."""
        return self.warps is not None

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """Row of the table and category: unique and fit for file names."""
        row = self.rows[index]
        return f"{row:07d}_{photo_id(self.table.entry(row).source.path).category.replace(' ', '_')}"

    def pair(self, index: int) -> Pair:
        """Raises UserError when a file cannot be read, or the split file gives the pair no scale."""
        row = self.rows[index]
        entry = self.table.entry(row)
        if math.isnan(entry.scale):
            raise UserError(f"{self.table.source}: pair {row} has no scale, poses cannot be encoded without")
        given, made = photo_id(entry.source.path), photo_id(entry.target.path)
        source_camera, target_camera = entry.source.camera(), entry.target.camera()
        pair = Pair(
            self.name(index),
            given.category,
            read_canvas(self.photos.find(given), source_camera, self.size),
            read_canvas(self.photos.find(made), target_camera, self.size),
            fit_canvas(source_camera.height, source_camera.width, self.size),
            fit_canvas(target_camera.height, target_camera.width, self.size),
            source_camera,
            target_camera,
            entry.scale,
        )
        if self.warps is not None:
            warp = read_warp(self.warps / warp_name(given, made))
            pair.warp, pair.small_warp, pair.coverage = warp_canvases(warp, self.size, self.small)
        return pair
