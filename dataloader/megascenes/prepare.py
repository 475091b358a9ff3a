"""The warps of all pairs, made once before training: in parallel, in shards, continued after a stop."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from common.cli import progress
from common.errors import UserError
from dataloader.images import fit_size, read_depth
from dataloader.megascenes.entries import Entry, Photo
from dataloader.megascenes.pair_table import PairTable, open_pairs
from dataloader.megascenes.photos import read_unpadded
from dataloader.megascenes.places import DepthFolder, Layout, PhotoFolder, photo_id, warp_name
from dataloader.megascenes.warps import fit_depth, lift_photo, render_warp, write_warp
from geometry.cameras import Cameras
from geometry.rasterize import Rasterizer

logger = logging.getLogger(__name__)

_CHUNK = 32  # pairs of the same source photos that a process takes at a time


@dataclass(frozen=True)
class WarpJob:
    """What the warps are made from and how.

    pairs: table or split pickle. photos, depths: folders (`PhotoFolder`, `DepthFolder`). out: folder of the
    PNG files. alpha: keep the coverage as alpha. max_size: long side to which larger photos, and the warps,
    are reduced; 0 keeps them.
    """

    pairs: Path
    photos: Path
    depths: Path
    out: Path
    layout: Layout = "auto"
    alpha: bool = True
    max_size: int = 0


@dataclass
class Prepared:
    """What `prepare_warps` did. made: newly written. present: there already. failed: one message per pair."""

    made: int = 0
    present: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def seen(self) -> int:
        return self.made + self.present + len(self.failed)


def shard_rows(table: PairTable, shard: int, shards: int) -> list[int]:
    """The rows of shard `shard` of `shards` (from 0), pairs of one source photo together.

    Every row belongs to exactly one shard, and all pairs of a source photo to the same. Raises UserError for
    a shard that there is not.
    """
    if not 0 <= shard < shards:
        raise UserError(
            f"shard {shard}/{shards} does not exist: shards are 0/{shards} to {shards - 1}/{shards}"
        )
    sources = np.asarray(table.photo_rows()[:, 0])
    mine = np.flatnonzero(sources % shards == shard)
    return mine[np.argsort(sources[mine], kind="stable")].tolist()


def prepare_warps(
    job: WarpJob, shard: int = 0, shards: int = 1, workers: int = 0, max_failures: int = 100
) -> Prepared:
    """Make the warps of a shard that are not there yet.

    workers: processes; 0 works in this one. Pairs that cannot be made are logged and counted; more than
    `max_failures` of them stop the run with a UserError, as do folders that are missing.
    """
    table = open_pairs(job.pairs)
    PhotoFolder(job.photos, job.layout)
    if not job.depths.is_dir():
        raise UserError(f"{job.depths} is no folder: make depth maps with scripts/megascenes.py align-depth")
    rows = shard_rows(table, shard, shards)
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    done = Prepared()
    with progress(rows[:0], f"warps {shard}/{shards}", total=len(rows), unit="pair") as bar:
        for part in _run(job, chunks, workers):
            for message in part.failed:
                logger.warning("warning: %s", message)
            done.made, done.present = done.made + part.made, done.present + part.present
            done.failed += part.failed
            bar.update(part.seen)
            if len(done.failed) > max_failures:
                raise UserError(
                    f"{len(done.failed)} pairs failed, more than --max_failures {max_failures}; the last: "
                    f"{done.failed[-1]}"
                )
    return done


def _run(job: WarpJob, chunks: Sequence[list[int]], workers: int) -> Iterator[Prepared]:
    if workers <= 0:
        yield from (make_chunk(job, chunk) for chunk in chunks)
        return
    waiting = iter(chunks)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_one_thread)
    try:
        # a few chunks ahead, not millions
        running = {pool.submit(make_chunk, job, chunk) for chunk in itertools.islice(waiting, 2 * workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(make_chunk, job, c) for c in itertools.islice(waiting, len(finished))}
            yield from (future.result() for future in finished)
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, probably for want of memory: lower --workers or set --max_size"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """The processes share the processor already."""
    torch.set_num_threads(1)


def make_chunk(job: WarpJob, rows: Sequence[int]) -> Prepared:
    """Make the warps of some rows; a photo is lifted once for all its pairs that follow each other."""
    table, photos = _open(job)
    depths = DepthFolder(job.depths, photos)
    done = Prepared()
    lifted: tuple[Photo, Rasterizer | None] | None = None
    for row in rows:
        try:
            entry = table.entry(row)
            path = job.out / warp_name(photo_id(entry.source.path), photo_id(entry.target.path))
            if path.exists():
                done.present += 1
                continue
            if lifted is None or lifted[0] != entry.source:
                lifted = None  # frees the surface before the next is made
                lifted = entry.source, lift_source(entry.source, photos, depths, job.max_size)
            write_warp(render_warp(lifted[1], warp_camera(entry, job.max_size)), path, job.alpha)
            done.made += 1
        except UserError as error:
            done.failed.append(f"pair {row}: {error}")
    return done


@lru_cache(maxsize=1)
def _open(job: WarpJob) -> tuple[PairTable, PhotoFolder]:
    """The table and the photo folder of a job, opened once per process."""
    return open_pairs(job.pairs), PhotoFolder(job.photos, job.layout)


def lift_source(photo: Photo, photos: PhotoFolder, depths: DepthFolder, max_size: int) -> Rasterizer | None:
    """The lifted surface of a photo from its files. Raises UserError when they cannot be read."""
    path = photos.find(photo_id(photo.path))
    image, camera = read_unpadded(path, photo.camera(), max_size)
    depth = fit_depth(read_depth(depths.find(path)), camera.height, camera.width)
    return lift_photo(image, depth, camera)


def warp_camera(entry: Entry, max_size: int) -> Cameras:
    """The target's camera at the size of the warp."""
    camera = entry.target.camera()
    return camera.resize(*fit_size(camera.height, camera.width, max_size))
