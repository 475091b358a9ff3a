"""Checks of what LVSM is fed with: framing, view choice, overlap, and items of both originals' data sets."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dataloader.framed import framed
from dataloader.framing import Framing, frame_image
from dataloader.images import to_tensor
from dataloader.re10k.examples import camera_rows
from dataloader.re10k.index import check_frames, index_tasks, read_index
from dataloader.re10k.index_rules import IndexRule, interior_entry, pair_entry
from dataloader.re10k.scenes import Re10kScenes
from dataloader.scene import Scene
from dataloader.scene_sets import ViewTask
from dataloader.view_choice import Choice, farthest_points
from dataloader.view_samplers import (
    ArbitrarySampler,
    BoundedSampler,
    BoundedV2Sampler,
    OfficialSampler,
)
from geometry.cameras import Cameras
from geometry.overlap import overlap, seen_stretch
from tests.parity.cases import Case, parity_folder

Normalise = Callable[[Cameras, Cameras], tuple[Cameras, Cameras]]

_CAMERA = 1e-4
_FRAMES = 200  # of the video that the samplers draw from
_DATA = parity_folder().parent / "data"


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _row(choice: Choice) -> list[int]:
    return choice.source + choice.target


def check_view_samplers(case: Case) -> None:
    """Every recorded row, drawn from generators of the recorded seeds: exact."""
    seeds, centers = case.meta["row_seeds"], case.input("sampler_positions")
    for name in case.outputs():
        if "_train_step" in name or "_numviews" in name:
            words = name.split("_")
            step = int(words[-1].removeprefix("step"))
            count = int(words[2].removeprefix("numviews")) if "fps" in words else 2
            v2 = BoundedV2Sampler(random_num_context_views="fps" in words)
            sampler = v2 if words[0] == "boundedv2" else BoundedSampler()
            rows = [_row(sampler.sample(_FRAMES, centers, step, _generator(s), count)) for s in seeds]
            case.close(name, rows)
    _check_windows(case)
    drawn = ArbitrarySampler(2, 3).sample(_FRAMES, centers, 0, _generator(case.meta["seed"]), 2)
    case.close("arbitrary_ctx", drawn.source)
    case.close("arbitrary_tgt", drawn.target)
    for count in (2, 4, 8):
        case.close(f"fps_{count}", farthest_points(case.input("fps_points"), count))


def _check_windows(case: Case) -> None:
    """What is taken in tests, and the curricula."""
    for name, choice in (
        ("bounded_test", BoundedSampler().window(_FRAMES)),
        ("boundedv2_test260", BoundedV2Sampler().window(260)),
    ):
        case.close(f"{name}_ctx", choice.source)
        case.close(f"{name}_tgt", choice.target)
    sampler = BoundedV2Sampler()
    steps = case.output("schedule_table")[:, 0].tolist()
    case.close("schedule_table", [[s, *sampler.bounds(s, 2), sampler.most_sources(s)] for s in steps])


def check_official_selector(case: Case) -> None:
    sampler = OfficialSampler()
    rows = [sampler.views(120 if s % 2 else 260, random.Random(s)) for s in case.meta["row_seeds"]]
    case.close("rows", rows)
    lengths = [int(word) for word in case.outputs()[0].split("_")[3:]]
    case.close(case.outputs()[0], [sampler.views(n, random.Random(0)) is None for n in lengths])
    recorded = case.output("target_indices_target_has_input")
    assert recorded[0].tolist() == sampler.targets(
        random.Random(case.meta["seed"])
    )  # the others: other state
    for row in recorded.tolist():
        assert len(set(row)) == sampler.num_target_views
        assert set(row) <= set(range(sampler.num_views))


def check_overlap_index(case: Case) -> None:
    height, width = case.config["image_hw"]
    K = case.input("intrinsics").double() * torch.tensor([[width], [height], [1.0]])
    cameras = Cameras(K, case.input("c2w").double(), height, width)
    values = [overlap(cameras[a], cameras[b]) for a, b in case.config["pairs"]]
    case.close("overlap", values, atol=2 / (height * width))
    _check_stretches(case, cameras)
    given = dict(case.config["generator"])
    seed, count = given.pop("seed"), given.pop("v2_num_context_views")
    entry = pair_entry(cameras, IndexRule(**given), _generator(seed))
    assert entry is not None
    case.close("v1_context", entry[0])
    case.close("v1_target", entry[1])
    rule = IndexRule(num_context_views=count, **given)
    recorded = tuple(case.output("v2_context").tolist()), tuple(case.output("v2_target").tolist())
    for sources, targets in (recorded, interior_entry(cameras, rule, _generator(seed))):
        left, right = min(sources), max(sources)
        assert rule.min_ctx_distance <= right - left <= rule.max_ctx_distance
        assert rule.fits(overlap(cameras[left], cameras[right]))
        assert len(set(sources)) == count
        assert len(set(targets)) == rule.num_target_views
        assert all(left < t < right and t not in sources for t in targets)


def _check_stretches(case: Case, cameras: Cameras) -> None:
    origins, directions = (part.reshape(-1, 3) for part in cameras[0].rays())
    mid = {name.removeprefix("mid."): tensor for name, tensor in case.tensors.items() if "mid." in name}
    first, last = seen_stretch(origins, directions, cameras[20])
    seen = first < last
    assert torch.equal(seen, mid["project_rays_0_to_20.overlaps_image"].bool())
    ends = {"t_min": first, "t_max": last.clamp(max=1e30)}
    for name, end in ends.items():
        recorded = mid[f"project_rays_0_to_20.{name}"].double()
        torch.testing.assert_close(end[seen], recorded[seen], rtol=1e-3, atol=2e-3)
    first, last = seen_stretch(origins, directions, cameras[20], 1, 100)
    differing = (first < last) != mid["near1_far100_overlaps"].bool()
    assert int(differing.sum()) <= 2  # rays that graze an edge


def check_crop(case: Case) -> None:
    for name in sorted({name.split(".")[0] for name in case.inputs()}):
        size = [int(number) for number in name.split("_to_")[1].split("x")]
        images, K = case.input(f"{name}.image_u8"), case.input(f"{name}.intrinsics").double()
        cameras = _pixel_cameras(K, tuple(images.shape[-2:]))
        framed = [_frame(image, cameras[i], Framing(*size, "unofficial")) for i, image in enumerate(images)]
        case.close(f"{name}.image", torch.stack([to_tensor(image) for image, _ in framed]), atol=1e-6)
        case.close(f"{name}.intrinsics", torch.stack([_normalised(c) for _, c in framed]), atol=1e-6)


def check_preprocess_frames(case: Case) -> None:
    for name in sorted({name.split(".")[0] for name in case.inputs()}):
        side, patch, square = (int(number) for number in re.findall(r"(\d+)(?=_|$)", name)[-3:])
        images, w2c = case.input(f"{name}.image_u8"), case.input(f"{name}.w2c").double()
        K = _matrices(case.input(f"{name}.fxfycxcy").double())
        cameras = Cameras(K, torch.linalg.inv(w2c), *images.shape[-2:])
        framing = Framing(side, style="official", patch=patch, square=bool(square))
        framed = [_frame(image, cameras[i], framing) for i, image in enumerate(images)]
        case.close(f"{name}.image", torch.stack([to_tensor(image) for image, _ in framed]), atol=1e-6)
        case.close(f"{name}.fxfycxcy", torch.stack([_four(c) for _, c in framed]), atol=_CAMERA)
        case.close(f"{name}.c2w", torch.stack([c.c2w for _, c in framed]), atol=1e-5)


def _tasks() -> list[tuple[Scene, ViewTask]]:
    """The scenes of the small data set's test split with their evaluation tasks."""
    scenes = Re10kScenes([_DATA / "re10k_mini"], "test")
    path = _DATA / "re10k_mini" / "evaluation_index.json"
    tasks = [(scenes.scene(t.scene), t) for t in index_tasks(read_index(path), scenes, str(path))]
    for scene, task in tasks:
        check_frames(task, len(scene), scene.name)
    return tasks


def check_dataset_items(case: Case, normalise: Normalise | None = None) -> None:
    """Items of the unofficial reader.

    normalise: (source, target cameras) -> both in the normalised frame; without it, those outputs stay
    uncompared.
    """
    framing = Framing(*case.config["image_shape"], "unofficial")
    tasks = _tasks()
    assert [scene.name for scene, _ in tasks] == case.config["expected_scenes"]
    for scene, task in tasks:
        kinds = {"context": sorted(task.source), "target": sorted(task.target)}
        views = {kind: framed(scene, framing).views(frames, threads=2) for kind, frames in kinds.items()}
        for kind, frames in kinds.items():
            name, cameras = f"{scene.name}.{kind}", views[kind].cameras
            case.close(f"{name}_index", frames)
            case.close(f"{name}_image", views[kind].images, atol=1e-6)
            case.close(f"{name}_K", _normalised(cameras), atol=1e-6)
            case.close(f"{name}_c2w", cameras.c2w, atol=_CAMERA)
        for bound in ("near", "far"):  # constants of the configuration, which neither model reads
            case.close(f"{scene.name}.{bound}", torch.full((len(task.source),), case.config[bound]))
        if normalise is not None:
            cameras = normalise(views["context"].cameras, views["target"].cameras)
            for kind, both in zip(kinds, cameras, strict=True):
                case.close(f"{scene.name}.{kind}_c2w_norm", both.c2w, atol=_CAMERA)


def check_official_items(case: Case, normalise: Callable[[Cameras], Cameras] | None = None) -> None:
    """Items of the official data set.

    normalise: cameras -> cameras in the normalised frame; without it, the poses stay uncompared.
    """
    framing = Framing(
        case.config["image_size"],
        style="official",
        patch=case.config["patch_size"],
        square=case.config["square_crop"],
    )
    for number, (scene, task) in enumerate(_tasks()):
        frames = [*task.source, *task.target]
        views = framed(scene, framing).views(frames)
        case.close(f"{scene.name}.index", [[frame, number] for frame in frames])
        case.close(f"{scene.name}.image", views.images, atol=1e-6)
        case.close(f"{scene.name}.fxfycxcy", _four(views.cameras), atol=_CAMERA)
        if normalise is not None:
            case.close(f"{scene.name}.c2w", normalise(views.cameras).c2w, atol=_CAMERA)


def check_process_data(case: Case) -> None:
    for scene, _ in _tasks():
        cameras = scene.cameras()
        case.close(f"{scene.name}.fxfycxcy", _four(cameras), rtol=1e-6)
        case.close(f"{scene.name}.w2c", cameras.w2c, atol=1e-12)
        case.close(f"{scene.name}.image0_u8", scene.records[0].load().copy())
        stored = camera_rows(cameras)[:, 6:].reshape(-1, 3, 4)
        assert torch.equal(stored, case.output(f"{scene.name}.w2c")[:, :3].float())


def _frame(image: Tensor, camera: Cameras, framing: Framing):
    return frame_image(image.permute(1, 2, 0).numpy(), camera, framing)


def _pixel_cameras(K: Tensor, size: tuple[int, ...]) -> Cameras:
    """Cameras at the origin from intrinsics over width and height."""
    scaled = K * torch.tensor([[size[1]], [size[0]], [1.0]], dtype=K.dtype)
    return Cameras(scaled, torch.eye(4, dtype=K.dtype).expand(*K.shape[:-2], 4, 4), *size)


def _normalised(cameras: Cameras) -> Tensor:
    """Intrinsics over width and height."""
    return cameras.K / torch.tensor([[cameras.width], [cameras.height], [1.0]], dtype=cameras.K.dtype)


def _four(cameras: Cameras) -> Tensor:
    """[..., 4] fx, fy, cx, cy in pixels."""
    return torch.cat([cameras.focal, cameras.K[..., :2, 2]], dim=-1)


def _matrices(four: Tensor) -> Tensor:
    K = torch.zeros(*four.shape[:-1], 3, 3, dtype=four.dtype)
    K[..., 0, 0], K[..., 1, 1], K[..., 0, 2], K[..., 1, 2] = four.unbind(-1)
    K[..., 2, 2] = 1
    return K


# `kh_dataset_items` and `off_dataset_items` hold normalised poses as well: bind `normalise` to compare them
CHECKS: dict[str, Callable[[Case], None]] = {
    "kh_view_samplers": check_view_samplers,
    "off_view_selector": check_official_selector,
    "kh_overlap_index": check_overlap_index,
    "kh_crop": check_crop,
    "off_preprocess_frames": check_preprocess_frames,
    "off_process_data": check_process_data,
}


def checks(
    normalise: Normalise, normalise_official: Callable[[Cameras], Cameras]
) -> dict[str, Callable[[Case], None]]:
    """Every check of this module, those of poses with the two ways to normalise them."""
    return {
        **CHECKS,
        "kh_dataset_items": partial(check_dataset_items, normalise=normalise),
        "off_dataset_items": partial(check_official_items, normalise=normalise_official),
    }
