"""Checks of what XScale-NVS makes before it trains: ray caches and camera folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader.formats import open_scene, write_scene
from dataloader.formats.mvsnet import parse_camera
from dataloader.formats.mvsnet_ranges import depth_line, pair_scores
from dataloader.images import read_image, write_image
from dataloader.prepare.metashape_cameras import convert
from dataloader.ray_cache import RayCache, write_ray_cache
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras
from geometry.mesh_files import read_mesh
from tests.parity.cases import Case

_FEW = 12  # rows per view on silhouettes and edges that two rasterisers may decide differently


def check_ray_cache(case: Case, folder: Path) -> None:
    """Our cache, decoded to the original's tensors: `xyz`, `normal`, `viewdr`, `colour`, scene box."""
    from methods.hash_manifold.originals import original_cameras

    (folder / "mesh.obj").write_bytes(bytes(case.input("obj").numpy()))
    mesh = read_mesh(folder / "mesh.obj")
    low, high = mesh.vertices.min(0).values.float(), mesh.vertices.max(0).values.float()
    case.close("center", (high + low) / 2, atol=1e-6)
    case.close("scale", (high - low) + 1e-6, atol=1e-6)
    scene = Scene("case", [], mesh_path=folder / "mesh.obj")
    for i, image in enumerate(case.input("images").numpy()):
        K, w2c, _ = parse_camera(case.text(f"text_{i}"), f"text_{i}")
        camera = Cameras(torch.from_numpy(K), torch.from_numpy(np.linalg.inv(w2c)), *image.shape[:2])
        scene.records.append(Record(f"{i}", original_cameras(camera), image))
    views, ratio = case.config["training_view_list"], case.config["ss_ratio"]
    write_ray_cache(scene, views, folder / "cache", ratio)
    cache = RayCache.open(folder / "cache", scene, views, ratio)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    for position, view in enumerate(views):
        if f"xyz_{view}" in case.outputs():
            count = int(cache.sizes[position])
            rays = cache.take(torch.full((count,), position), torch.arange(count))
            xyz = rays.interpolate(mesh.faces, mesh.vertices)
            normal = torch.nn.functional.normalize(rays.interpolate(mesh.faces, normals), dim=-1)
            direction = torch.nn.functional.normalize(xyz - scene.records[view].camera.center, dim=-1)
            maps = {"xyz": xyz, "normal": normal, "viewdr": direction, "colour": rays.color / 256}
            compare_rows(case, view, maps, cache.pixels(position), rays.covered, cache.shapes[position])


def compare_rows(
    case: Case, view: int, maps: dict[str, Tensor], pixels: Tensor, covered: Tensor, shape: Tensor
) -> None:
    """Our rows against the recorded ones, matched by where they lie in the photo.

    The original keeps the pixels of its own coverage rule, whose positions the case does not say; they are
    found from the recorded points through the pixels of ours that its rule would keep. A handful of pixels on
    edges may differ.
    """
    height, width = shape.tolist()
    ratio = case.config["ss_ratio"]
    tiles = covered.reshape(-1, ratio, ratio)
    hits = torch.zeros(height, width, ratio, ratio, dtype=torch.bool)
    hits.view(-1, ratio, ratio)[pixels] = tiles
    large = hits.permute(0, 2, 1, 3).reshape(height * ratio, width * ratio)
    kept = original_coverage(large, height, width).flatten()  # may hold pixels that none of our samples sees
    row_of = torch.full((height * width,), -1)
    row_of[pixels] = torch.arange(len(pixels))
    rows = row_of[kept]
    mine = {name: values[rows.clamp(min=0)] for name, values in maps.items()}
    for values in mine.values():
        values[rows < 0] = 0
    seen = covered[rows.clamp(min=0)] & (rows >= 0)[:, None]
    recorded = {name: case.output(f"{name}_{view}") for name in maps}
    ours, theirs = align(mine["colour"], recorded["colour"])
    assert len(ours) >= max(len(mine["colour"]), len(recorded["colour"])) - _FEW
    tolerance: dict[str, Any] = case.meta["tolerance"]
    stable = torch.ones(len(theirs), dtype=torch.bool)
    if f"exclude_{view}" in case.outputs():
        stable = ~case.output(f"exclude_{view}")[theirs]
    there = recorded["xyz"][theirs].abs().sum(-1) > 0  # missed sub-samples lie at the origin
    assert (there != seen[ours])[stable].sum() <= _FEW
    both = there & seen[ours] & stable[:, None]
    assert both.float().mean() > 0.8
    assert torch.equal(mine["colour"][ours], recorded["colour"][theirs])
    for name in ("xyz", "normal", "viewdr"):
        error = (mine[name][ours] - recorded[name][theirs]).abs().amax(-1)
        wrong = (error > tolerance[name]["atol"]) & both
        allowed = 0 if f"exclude_{view}" in case.outputs() else _FEW
        assert wrong.sum() <= allowed, f"{name}_{view}: {int(wrong.sum())} rows differ"


def align(mine: Tensor, recorded: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of two sequences of colours that belong together, when few are inserted or missing."""
    from difflib import SequenceMatcher

    keys = [[tuple(row) for row in (values * 256).round().long().tolist()] for values in (mine, recorded)]
    blocks = SequenceMatcher(None, *keys, autojunk=False).get_matching_blocks()
    ours = torch.cat([torch.arange(block.a, block.a + block.size) for block in blocks])
    theirs = torch.cat([torch.arange(block.b, block.b + block.size) for block in blocks])
    return ours, theirs


def original_coverage(hits: Tensor, height: int, width: int) -> Tensor:
    """[H, W] bool from [s H, s W]: bilinear samples with aligned corners above 0 (spec 4.3, step 4)."""
    resized = torch.nn.functional.interpolate(
        hits[None, None].float(), size=(height, width), mode="bilinear", align_corners=True
    )
    return resized[0, 0] > 0


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit [V, 3]: face normals weighted by the angle at the vertex, as trimesh computes them."""
    import trimesh

    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    return torch.from_numpy(np.array(mesh.vertex_normals))


def numbers_of(case: Case, name: str) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """K, w2c and depth line of a recorded camera text."""
    return parse_camera(bytes(case.output(name).numpy()).decode(), name)


def close_camera(case: Case, name: str, K: np.ndarray, w2c: np.ndarray) -> None:
    """Against the recorded matrices and the recorded text."""
    recorded_K, recorded_w2c, _ = numbers_of(case, f"cam_text_{name}")
    np.testing.assert_allclose(K, recorded_K, rtol=1e-6)
    np.testing.assert_allclose(w2c, recorded_w2c, rtol=0, atol=1e-6)
    case.close(f"extrinsic_{name}", w2c[:3], **case.meta["tolerance"]["extrinsic"])
    case.close(f"intrinsic_{name}", K, **case.meta["tolerance"]["intrinsic"])


def check_metashape_xml(case: Case, folder: Path) -> None:
    """PNG photos, so that the reduced ones can be compared exactly; the recorded ones are BGR.

    The original multiplies K by 1 / d even where d does not divide the size; ours is undone here. It skips
    cameras in groups; ours reads them.
    """
    factor = case.config["dsp_factor"]
    (folder / "cams.xml").write_text(case.text("xml"))
    for name in case.inputs():
        if name.startswith("image_"):
            photo = case.input(name).numpy()[..., ::-1]
            write_image(np.ascontiguousarray(photo), folder / "images" / f"{name.removeprefix('image_')}.png")
    done = convert(folder, folder / "out", factor)
    written = {path.name for path in done.cams.iterdir()}
    assert written >= set(case.config["converted"])
    for file in case.config["converted"]:
        label = file.removesuffix("_cam.txt")
        K, w2c, _ = parse_camera((done.cams / file).read_text(), file)
        small = read_image(done.images / f"{label}.png")
        height, width = case.input(f"image_{label}").shape[:2]
        assert small.shape[:2] == (height // factor, width // factor)
        K = np.diag([width / factor / small.shape[1], height / factor / small.shape[0], 1]) @ K
        close_camera(case, label, K, w2c)
        if f"resized_{label}" in case.outputs():
            case.close(f"resized_{label}", torch.from_numpy(small[..., ::-1].copy()), atol=1)


def check_colmap_to_mvsnet(case: Case, folder: Path) -> None:
    """The model as we read it and write it to MVSNet; the original drops the distortion: set to 0."""
    config = case.config
    sparse = folder / "scene" / "sparse"
    sparse.mkdir(parents=True)
    (sparse / "cameras.txt").write_text(without_distortion(case.text("cameras_txt")))
    (sparse / "images.txt").write_text(case.text("images_txt"))
    (sparse / "points3D.txt").write_text(case.text("points3D_txt"))
    for name, size in photo_sizes(case).items():
        write_image(np.zeros((*size, 3), np.uint8), folder / "scene" / "images" / name)
    scene = open_scene(folder / "scene", "colmap")
    write_scene(scene, folder / "mvsnet", "mvsnet")
    assert scene.points is not None
    files = image_files(case.text("images_txt"))  # in the order of their ids
    records = [next(record for record in scene.records if record.name == Path(file).stem) for file in files]
    default = not config["max_d"] and config["interval_scale"] == 1
    for i, record in enumerate(records):
        text = (folder / "mvsnet" / "cams" / f"{record.name}_cam.txt").read_text()
        K, w2c, written = parse_camera(text, record.name)
        close_camera(case, str(i), K, w2c)
        line = depth_line(scene.points, record.name, record.camera, config["max_d"], config["interval_scale"])
        assert line is not None
        assert not default or tuple(written) == line
        case.close(f"depth_range_{i}", torch.tensor(line), **case.meta["tolerance"]["depth_range"])
    scores = pair_scores(records, scene.points, config["theta0"], config["sigma1"], config["sigma2"])
    close_pairs(bytes(case.output("pair_txt").numpy()).decode(), scores)
    assert (folder / "mvsnet" / "pair.txt").is_file()


def close_pairs(text: str, scores: np.ndarray) -> None:
    """The recorded pairs hold our scores, best first; the original also lists the photo itself, with 0."""
    lines = text.splitlines()
    assert int(lines[0]) == len(scores)
    for i in range(len(scores)):
        assert int(lines[1 + 2 * i]) == i
        words = lines[2 + 2 * i].split()
        partners, values = [int(word) for word in words[1::2]], [float(word) for word in words[2::2]]
        np.testing.assert_allclose(values, scores[i][partners], rtol=1e-4, atol=2e-6)
        best = np.sort(scores[i])[::-1][: len(values)]
        np.testing.assert_allclose(values, best, rtol=1e-4, atol=2e-6)


def without_distortion(text: str) -> str:
    """cameras.txt with every camera as the PINHOLE that the original makes of it."""
    lines = []
    for line in text.splitlines():
        words = line.split()
        if words and not line.startswith("#"):
            one_focal = words[1] in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE")
            fx, *rest = words[4:]
            pinhole = [fx, fx, *rest[:2]] if one_focal else [fx, *rest[:3]]
            line = " ".join([words[0], "PINHOLE", *words[2:4], *pinhole])
        lines.append(line)
    return "\n".join(lines) + "\n"


def _entries(text: str) -> list[list[str]]:
    """The first line of each image in images.txt, by id."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return sorted((line.split() for line in lines[::2] if line.split()), key=lambda words: int(words[0]))


def image_files(text: str) -> list[str]:
    """Photo files in the order of their ids."""
    return [words[9] for words in _entries(text)]


def photo_sizes(case: Case) -> dict[str, tuple[int, int]]:
    """(height, width) by photo file."""
    sizes = {}
    for line in case.text("cameras_txt").splitlines():
        if (found := re.match(r"(\d+) \w+ (\d+) (\d+)", line)) is not None:
            sizes[found[1]] = (int(found[3]), int(found[2]))
    return {words[9]: sizes[words[8]] for words in _entries(case.text("images_txt"))}
