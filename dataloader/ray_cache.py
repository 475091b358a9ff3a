"""A folder of rays, one file per view (dataloader.ray_files): made, completed, and read at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.ray_files import (
    MISSED,
    SUFFIX,
    Origin,
    RayWriter,
    damaged,
    decode,
    encode,
    mesh_digest,
    origin_of,
    read_footer,
    record_type,
)
from dataloader.scene import Record, Scene
from dataloader.surface_rays import (
    SurfaceRays,
    cast_pixels,
    chosen_records,
    load_photo,
    nothing_seen,
    record_camera,
)
from geometry.cameras import Cameras
from geometry.rasterize import Rasterizer

_TILE_SAMPLES = 1 << 18  # rays cast and written at a time: about 50 MB


@dataclass(frozen=True)
class CacheSummary:
    """What a cache holds for the chosen views. made: views cast anew. unseen: names of those that see
    nothing of the mesh. samples: covered sub-samples.
    """

    views: int
    pixels: int
    samples: int
    bytes: int
    made: int
    unseen: list[str]


def write_ray_cache(
    scene: Scene, indices: Sequence[int], folder: Path, supersample: int = 1, max_size: int = 0
) -> CacheSummary:
    """Make or complete the ray cache of some views; files that are still right are kept.

    supersample, max_size: as in `CastRays`. Views of other indices that lie in the folder stay. A killed run
    continues with the first view that it had not finished. Raises UserError for a scene without mesh, views
    that do not exist, photos that cannot be read, a folder that cannot be written, or when no view sees the
    mesh; then views that see nothing leave no file.
    """
    if supersample < 1 or max_size < 0:
        raise UserError(f"supersample is {supersample}, max_size {max_size}: they must be at least 1 and 0")
    records, mesh = chosen_records(scene, indices), mesh_digest(scene)
    _remove_leftovers(folder)
    kept = [_is_good(record, folder, mesh, supersample, max_size) for record in
            progress(records, "checking", unit="view", leave=False)]  # fmt: skip
    todo = [record for record, good in zip(records, kept, strict=True) if not good]
    if todo:
        _write_views(todo, folder, Rasterizer(scene.mesh(), "embree"), mesh, supersample, max_size)
    footers = {record.name: _footer(folder, record) for record in records}
    unseen = [name for name, footer in footers.items() if not footer["covered"]]
    if len(unseen) == len(records):
        for record in todo:
            _path(folder, record).unlink()
        with suppress(OSError):
            folder.rmdir()  # where it holds nothing else
        raise UserError(nothing_seen(scene, records))
    return CacheSummary(
        views=len(records) - len(unseen),
        pixels=sum(footer["covered"] for footer in footers.values()),
        samples=sum(footer["samples"] for footer in footers.values()),
        bytes=sum(_path(folder, record).stat().st_size for record in records),
        made=len(todo),
        unseen=unseen,
    )


def _write_views(
    records: Sequence[Record],
    folder: Path,
    rasterizer: Rasterizer,
    mesh: str,
    supersample: int,
    max_size: int,
) -> None:
    cameras = [record_camera(record, max_size) for record in records]
    total = sum(camera.height * camera.width for camera in cameras)
    with progress((), "rays", total=total, unit="px", unit_scale=True) as bar:
        for record in records:
            bar.set_postfix_str(record.name)
            origin = origin_of(record, mesh, supersample, max_size)
            _write_view(_path(folder, record), record, origin, rasterizer, max_size, bar.update)


def _path(folder: Path, record: Record) -> Path:
    return folder / (record.name + SUFFIX)


def _footer(folder: Path, record: Record) -> dict[str, Any]:
    """The footer of a file that was good a moment ago."""
    footer = read_footer(_path(folder, record))
    if footer is None:
        raise UserError(f"{_path(folder, record)} has vanished: is another program at work in {folder}?")
    return footer


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed runs left half-written."""
    for path in folder.glob(f".*{SUFFIX}.*.tmp"):
        path.unlink(missing_ok=True)


def _is_good(record: Record, folder: Path, mesh: str, supersample: int, max_size: int) -> bool:
    path = _path(folder, record)
    footer = read_footer(path)
    if footer is None or origin_of(record, mesh, supersample, max_size).difference(footer):
        return False
    return not damaged(path, footer)


def _write_view(
    path: Path, record: Record, origin: Origin, rasterizer: Rasterizer, max_size: int, done: Callable
) -> None:
    """Cast and write one view, some rows at a time. done: told the number of pixels after each tile."""
    camera = record_camera(record, max_size)
    photo = load_photo(record, camera)
    masks, covered, samples = [], 0, 0
    with replacing(path) as partial, partial.open("wb") as file:
        writer = RayWriter(file)
        for rows in _row_tiles(camera, origin.supersample):
            mask, records = _cast_rows(rasterizer, camera, photo, rows, origin.supersample)
            writer.write(records.tobytes())
            masks.append(mask)
            covered += len(records)
            samples += int((records["face"] != MISSED).sum())
            done((rows.stop - rows.start) * camera.width)
        writer.write(np.packbits(np.concatenate(masks)).tobytes())
        writer.finish({**asdict(origin), "covered": covered, "samples": samples})


def _row_tiles(camera: Cameras, supersample: int) -> Iterator[slice]:
    rows = max(1, _TILE_SAMPLES // (camera.width * supersample**2))
    for top in range(0, camera.height, rows):
        yield slice(top, min(top + rows, camera.height))


def _cast_rows(
    rasterizer: Rasterizer, camera: Cameras, photo: NDArray[np.uint8], rows: slice, supersample: int
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Which pixels of some rows are covered [h W], and their records."""
    y, x = torch.meshgrid(torch.arange(rows.start, rows.stop), torch.arange(camera.width), indexing="ij")
    pixel = torch.stack([x.flatten(), y.flatten()], dim=-1)
    view = torch.zeros(1, dtype=torch.int64)
    face, barycentric = cast_pixels(rasterizer, camera.reshape(1), view, pixel, supersample)
    mask = (face >= 0).any(-1)
    colors = photo[rows].reshape(-1, 3)[mask.numpy()]
    return mask.numpy(), encode(face[mask], barycentric[mask], colors)


def _reasons(
    records: Sequence[Record],
    footers: Sequence[dict[str, Any] | None],
    mesh: str,
    supersample: int,
    max_size: int,
) -> Iterator[tuple[Record, str]]:
    """Each record and why its footer cannot be used ('' where it can); the missing ones come first."""
    for record, footer in zip(records, footers, strict=True):
        if footer is None:
            yield record, "they are missing or cut off"
    with ThreadPoolExecutor(4) as pool:  # reading and hashing release the interpreter's lock
        origins = pool.map(lambda record: origin_of(record, mesh, supersample, max_size), records)
        checked = zip(records, footers, origins, strict=True)
        for record, footer, origin in progress(checked, "ray cache", len(records), unit="view", leave=False):
            yield record, origin.difference(footer or {})


class RayCache:
    """A ray cache, memory-mapped: a `RaySource` of the covered pixels of each view, in row-major order."""

    def __init__(self, files: Sequence[Path], footers: Sequence[dict[str, Any]]) -> None:
        self.supersample: int = footers[0]["supersample"]
        self.shapes = torch.tensor([(footer["height"], footer["width"]) for footer in footers])
        self.sizes = torch.tensor([footer["covered"] for footer in footers])
        self._files = list(files)
        self._records = [_map(path, footer) for path, footer in zip(files, footers, strict=True)]

    @classmethod
    def open(
        cls,
        folder: str | Path,
        scene: Scene,
        indices: Sequence[int],
        supersample: int = 1,
        max_size: int = 0,
        root: str = "SCENE",
    ) -> RayCache:
        """The cache of some views, in their order, once it is known to fit photos, cameras and mesh.

        root: what the command that makes the cache calls the scene (data.root), for messages. Photos and mesh
        are read once to compare their digests. Raises UserError naming a view whose rays are missing or stale
        and the command to run, or when no view has any ray.
        """
        folder, records = Path(folder).expanduser(), chosen_records(scene, indices)
        footers = [read_footer(_path(folder, record)) for record in records]
        words = f"scripts/scene.py cache-rays {root} {folder} --supersample {supersample}"
        words += f" --max_size {max_size}" if max_size else ""
        for record, reason in _reasons(records, footers, mesh_digest(scene), supersample, max_size):
            if reason:
                raise UserError(
                    f"{folder}: the rays of view {record.name} are of no use ({reason}): run {words}"
                )
        good = [footer for footer in footers if footer is not None]
        if not any(footer["covered"] for footer in good):
            raise UserError(f"{folder}: none of the chosen views sees the mesh: choose others")
        return cls([_path(folder, record) for record in records], good)

    def take(self, view: Tensor, row: Tensor) -> SurfaceRays:
        """Read the covered pixels row [N] of the views [N] (see `RaySource`)."""
        kind = record_type(self.supersample)
        records = np.empty(len(view), f"V{kind.itemsize}")
        order = np.argsort(view.numpy(), kind="stable")
        counts = np.bincount(view.numpy(), minlength=len(self.sizes))
        rows, ends = row.numpy()[order], counts.cumsum()
        for i in counts.nonzero()[0]:
            part = slice(ends[i] - counts[i], ends[i])
            records[order[part]] = np.take(self._records[i], rows[part])
        return decode(records.view(kind), view)

    def pixels(self, view: int) -> Tensor:
        """[sizes[view]] int64: which pixel (row * width + column) each ray of a view belongs to."""
        count = int(self.shapes[view].prod())
        with self._files[view].open("rb") as file:
            file.seek(self._records[view].nbytes)
            bits = np.frombuffer(file.read(-(-count // 8)), np.uint8)
        return torch.from_numpy(np.flatnonzero(np.unpackbits(bits, count=count)))


def _map(path: Path, footer: dict[str, Any]) -> NDArray[Any]:
    """The records of a file [covered], each as opaque bytes: NumPy copies those far faster than fields."""
    kind = f"V{record_type(footer['supersample']).itemsize}"
    count = footer["covered"]
    return np.memmap(path, kind, "r", shape=(count,)) if count else np.empty(0, kind)
