"""Warps made before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from dataloader.images import read_image
from dataloader.megascenes import prepare
from dataloader.megascenes.entries import parse_entry
from dataloader.megascenes.pair_set import MegaScenesPairs
from dataloader.megascenes.pair_table import collect_pairs, open_pairs, write_pairs
from dataloader.megascenes.places import PhotoFolder, photo_id, warp_name
from dataloader.megascenes.prepare import WarpJob, prepare_warps, shard_rows
from dataloader.megascenes.warps import read_warp
from dataloader.util_3dphoto import render_view, unproject_depth


@pytest.fixture
def job(tmp_path: Path, entry: Callable, store_photos: Callable) -> WarpJob:
    """Three photos of one plane, and all six pairs of them."""
    store_photos(tmp_path / "photos", count=3)
    for number in range(3):
        place = tmp_path / "depths/Some_Castle/commons/Inside Some_Castle" / f"View_{number}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, np.full((12, 16), 3.0, np.float32))
    raw = [entry(i, j) for i in range(3) for j in range(3) if i != j]
    write_pairs(collect_pairs(raw, "split"), tmp_path / "pairs.safetensors")
    return WarpJob(
        tmp_path / "pairs.safetensors", tmp_path / "photos", tmp_path / "depths", tmp_path / "warps"
    )


def file_of(job: WarpJob, row: int) -> Path:
    entry = open_pairs(job.pairs).entry(row)
    return job.out / warp_name(photo_id(entry.source.path), photo_id(entry.target.path))


@pytest.mark.parametrize("shards", [1, 3, 7, 40])
def test_shards_cover_every_pair_exactly_once(entry: Callable, shards: int) -> None:
    rng = np.random.default_rng(0)
    table = collect_pairs([entry(*rng.integers(0, 12, 2).tolist()) for _ in range(200)], "split")
    rows = [shard_rows(table, shard, shards) for shard in range(shards)]
    assert sorted(row for part in rows for row in part) == list(range(200))
    sources = [set(table.photo_rows()[part, 0].tolist()) for part in rows]
    assert sum(map(len, sources)) == len(set().union(*sources))  # no photo is lifted by two shards
    with pytest.raises(UserError, match=f"shard {shards}/{shards} does not exist"):
        shard_rows(table, shards, shards)


def test_warps_are_the_originals(job: WarpJob) -> None:
    plain = replace(job, alpha=False)
    assert prepare_warps(plain).made == 6
    entry = open_pairs(job.pairs).entry(0)
    source, target = entry.source.camera(), entry.target.camera()
    photo = read_image(next(job.photos.rglob("View_0.jpg")))
    depth, K = np.full((48, 64), 3.0, np.float32), source.K.numpy()
    mesh = unproject_depth(None, photo / 255, depth, K, source.c2w.numpy(), add_faces=True)
    expected, _ = render_view(48, 64, target.K.numpy(), target.c2w.numpy(), mesh)
    image = Image.open(file_of(job, 0))
    assert image.mode == "RGB"
    levels = np.abs(np.asarray(image).astype(int) - np.rint(255 * expected))
    assert levels.max() <= 1
    assert np.asarray(image)[:, :-4].any(-1).mean() > 0.9  # the camera moved by a few pixels


def test_alpha_tells_what_is_covered(job: WarpJob) -> None:
    prepare_warps(job)
    file = file_of(job, 0)
    assert Image.open(file).mode == "RGBA"
    warp = read_warp(file)
    assert set(np.unique(warp.coverage)) <= {0, 64, 128, 191, 255}
    assert (warp.image[warp.coverage == 0] == 0).all()
    plain = replace(job, alpha=False, out=job.out.with_name("plain"))
    prepare_warps(plain)
    np.testing.assert_array_equal(read_warp(file_of(plain, 0)).image, warp.image)


def test_pairs_find_their_warps(job: WarpJob) -> None:
    prepare_warps(job)
    pairs = MegaScenesPairs(open_pairs(job.pairs), PhotoFolder(job.photos), job.out)
    for index in range(len(pairs)):
        pair = pairs.pair(index)
        assert pair.coverage is not None
        assert pair.target_canvas.cut(pair.coverage).mean() > 0.8


def test_a_run_continues_where_it_was(job: WarpJob) -> None:
    prepare_warps(job)
    kept, lost = file_of(job, 3), file_of(job, 4)
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    again = prepare_warps(job)
    assert (again.made, again.present, again.failed) == (1, 5, [])
    assert kept.stat().st_mtime_ns == stamp


def test_shards_together_make_all(job: WarpJob) -> None:
    made = [prepare_warps(job, shard, 3).made for shard in range(3)]
    assert sum(made) == 6
    assert len(list(job.out.iterdir())) == 6


def test_a_photo_is_lifted_once(job: WarpJob, monkeypatch: pytest.MonkeyPatch) -> None:
    lifted = []
    real = prepare.lift_source
    monkeypatch.setattr(prepare, "lift_source", lambda *args: lifted.append(args[0].path) or real(*args))
    prepare_warps(job)
    assert len(lifted) == len(set(lifted)) == 3


def test_failures_are_counted_and_named(job: WarpJob, caplog: pytest.LogCaptureFixture) -> None:
    next(job.depths.rglob("View_2.npy")).unlink()
    done = prepare_warps(job)
    assert (done.made, len(done.failed)) == (4, 2)
    assert all("View_2.npy does not exist" in message for message in done.failed)
    assert "pair 4: " in caplog.text
    with pytest.raises(UserError, match=r"2 pairs failed, more than --max_failures 1; the last: pair"):
        prepare_warps(job, max_failures=1)


def test_sizes_may_be_limited(job: WarpJob) -> None:
    prepare_warps(replace(job, max_size=32))
    assert Image.open(file_of(job, 0)).size == (32, 24)


def test_padded_photos_are_cut_out(job: WarpJob, entry: Callable) -> None:
    place = next(job.photos.rglob("View_0.jpg"))
    photo = Image.open(place).convert("RGB")
    canvas = Image.new("RGB", (256, 256), (255, 255, 255))
    canvas.paste(photo.resize((256, 192), Image.Resampling.LANCZOS), (0, 32))
    prepare_warps(replace(job, out=job.out.with_name("native")))
    canvas.save(place)
    prepare_warps(job)
    native, padded = (
        read_warp(file_of(replace(job, out=job.out.with_name(n)), 0)) for n in ("native", "warps")
    )
    assert np.abs(native.image.astype(int) - padded.image).mean() < 12
    both = (native.coverage > 0) == (padded.coverage > 0)
    assert both.mean() > 0.95
    assert parse_entry(entry(), "it").target.width == padded.image.shape[1]


def test_missing_folders_stop_at_once(job: WarpJob, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="align-depth"):
        prepare_warps(replace(job, depths=tmp_path / "nowhere"))
    with pytest.raises(UserError, match="is no folder"):
        prepare_warps(replace(job, photos=tmp_path / "nowhere"))


def test_processes_make_the_same(job: WarpJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_CHUNK", 5)
    alone, many = replace(job, out=job.out.with_name("alone")), job
    assert prepare_warps(alone).made == prepare_warps(many, workers=1).made == 6
    for file in alone.out.iterdir():
        assert file.read_bytes() == (many.out / file.name).read_bytes()
