"""Chunks as sets of scenes: what is read, and what messages say of what cannot be."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from dataloader.formats import open_scene, write_scene
from dataloader.re10k import scenes as scenes_module
from dataloader.re10k.chunks import Example, read_chunk, write_chunk
from dataloader.re10k.examples import camera_rows, example_cameras, fields_of_view
from dataloader.re10k.scenes import Re10kScenes
from dataloader.scene_sets import SceneSet
from geometry.cameras import pinhole
from tests.dataloader.re10k.makers import damage, make_example, make_root
from tests.dataloader.servers import Site, s3_server, web_server


@pytest.fixture
def site() -> Iterator[Site]:
    with web_server(Site(files={})) as served:
        yield served


@pytest.fixture
def rooms() -> list[Example]:
    return [make_example(seed) for seed in range(3)]


def test_scenes_in_the_order_of_their_chunks(tmp_path: Path, rooms: list[Example]) -> None:
    scenes = Re10kScenes([make_root(tmp_path, [rooms[:2], rooms[2:]])], "test")
    assert isinstance(scenes, SceneSet)
    assert (len(scenes), list(scenes.chunk_sizes)) == (3, [2, 1])
    assert [scenes.key(i) for i in range(3)] == ["room0000", "room0001", "room0002"]
    scene = scenes.scene(2)
    assert (scene.name, scene.names[:2]) == ("room0002", ["000000", "000001"])
    cameras = scene.cameras()
    torch.testing.assert_close(cameras.time, torch.arange(5).double() * 100_000)
    torch.testing.assert_close(camera_rows(cameras), rooms[2]["cameras"])
    assert cameras.K.dtype == torch.float64
    assert scene.views([0, 4]).images.shape == (2, 3, 24, 40)


def test_compressed_chunks_hold_the_same(tmp_path: Path, rooms: list[Example]) -> None:
    plain = Re10kScenes([make_root(tmp_path / "a", [rooms])], "test").scene(1)
    packed = Re10kScenes([make_root(tmp_path / "b", [rooms], suffix=".bl2")], "test").scene(1)
    assert packed.records[0].source.endswith("000000.bl2, scene room0001, frame 0")
    torch.testing.assert_close(plain.views().images, packed.views().images, rtol=0, atol=0)


def test_a_chunk_is_read_once_while_it_is_worked_on(
    tmp_path: Path, rooms: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = Re10kScenes([make_root(tmp_path, [rooms[:2], rooms[2:]])], "test", open_chunks=1)
    read: list[str] = []
    monkeypatch.setattr(
        scenes_module, "read_chunk", lambda path: (read.append(path.stem), read_chunk(path))[1]
    )
    for index in (0, 1, 0, 2, 2, 1):
        scenes.scene(index)
    assert read == ["000000", "000001", "000000"]
    again = pickle.loads(pickle.dumps(scenes))  # to a loader process: without the open chunk
    again.scene(1)
    assert len(read) == 4


def test_several_roots_and_one_over_http(tmp_path: Path, rooms: list[Example], site: Site) -> None:
    near = make_root(tmp_path / "near", [rooms[:1]])
    make_root(tmp_path / "far", [rooms[1:]], suffix=".bl2")
    for path in (tmp_path / "far").rglob("*"):
        if path.is_file():
            site.files[f"/re10k/{path.relative_to(tmp_path / 'far')}"] = path.read_bytes()
    cache = tmp_path / "cache"
    scenes = Re10kScenes([near, f"{site.url}/re10k"], "test", cache=cache)
    assert [scenes.scene(i).name for i in range(3)] == ["room0000", "room0001", "room0002"]
    assert sorted(path.name for path in cache.rglob("*.bl2")) == ["000000.bl2"]


def test_a_root_in_a_bucket(tmp_path: Path, rooms: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    make_root(tmp_path / "far", [rooms])
    with s3_server(monkeypatch) as bucket:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
        for path in (tmp_path / "far").rglob("*.*"):
            place = bucket.put(f"re10k/{path.relative_to(tmp_path / 'far')}", path.read_bytes())
        root = place.partition("/re10k/")[0] + "/re10k"
        scenes = Re10kScenes([root], "test", cache=tmp_path / "cache")
        assert scenes.expected == (24, 40)
        assert scenes.scene(1).views([0]).images.shape == (1, 3, 24, 40)
        with pytest.raises(UserError, match=r"train/index.json"):
            Re10kScenes([root], "train", cache=tmp_path / "cache")


def _without_meta_agreement(root: Path, rooms: list[Example]) -> list[Path]:
    return [make_root(root / "a", [rooms[:1]]), make_root(root / "b", [rooms[1:]], size=(24, 41))]


def _mixed_suffixes(root: Path, rooms: list[Example]) -> list[Path]:
    write_chunk(rooms, make_root(root, [rooms]) / "test" / "000001.bl2")
    return [root]


def _missing_chunk(root: Path, rooms: list[Example]) -> list[Path]:
    make_root(root, [rooms[:2], rooms[2:]])
    (root / "test" / "000001.torch").unlink()
    return [root]


def _same_scene_twice(root: Path, rooms: list[Example]) -> list[Path]:
    return [make_root(root / "a", [rooms[:1]]), make_root(root / "b", [rooms])]


def _strange_index(root: Path, rooms: list[Example]) -> list[Path]:
    (make_root(root, [rooms]) / "test" / "index.json").write_text('{"a": "../x.torch"}')
    return [root]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root, rooms: [root], r"test/index.json does not exist"),
        (_without_meta_agreement, r"b/meta.json and .*a/meta.json differ in expected_shape"),
        (_mixed_suffixes, r"test holds .torch and .bl2 chunks: keep one kind"),
        (_missing_chunk, r"names 000001.torch, which does not exist"),
        (_same_scene_twice, r"scene room0000 is in two roots"),
        (_strange_index, r"index.json: a lies in '../x.torch'"),
    ],
)
def test_folders_that_cannot_be_opened(
    tmp_path: Path,
    rooms: list[Example],
    make: Callable[[Path, list[Example]], list[Path]],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        Re10kScenes(make(tmp_path, rooms), "test")


def _other_size(example: Example) -> None:
    example["images"] = make_example(9, size=(24, 48))["images"]


def _mixed_size(example: Example) -> None:
    example["images"][3] = make_example(9, size=(24, 48))["images"][0]


def _wide(example: Example) -> None:
    example["cameras"][2, 0] = 0.3  # 118 degrees


def _nan(example: Example) -> None:
    example["cameras"][2, 8] = float("nan")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_other_size, "frame 0 is 48x24, meta.json expects 40x24"),
        (_mixed_size, "frame 3 is 48x24, meta.json expects 40x24"),
        (_wide, "000000.torch, scene room0001, frame 2 sees 118 degrees, more than 100"),
        (_nan, "holds NaN"),
    ],
)
def test_scenes_that_cannot_be_used(
    tmp_path: Path, rooms: list[Example], spoil: Callable[[Example], None], message: str
) -> None:
    spoil(rooms[1])
    scenes = Re10kScenes([make_root(tmp_path, [rooms])], "test")
    with pytest.raises(UserError, match=message):
        scenes.scene(1)
    assert len(scenes.scene(2)) == 5


def test_a_truncated_photo_is_named_when_it_is_decoded(tmp_path: Path, rooms: list[Example]) -> None:
    damage(rooms[1], 3)
    scene = Re10kScenes([make_root(tmp_path, [rooms])], "test").scene(1)
    assert scene.views([0, 1]).images.shape[0] == 2
    with pytest.raises(
        UserError, match=r"test/000000.torch, scene room0001, frame 3 is not a readable image"
    ):
        scene.views([3])


def test_a_scene_of_a_chunk_is_written_in_other_formats(tmp_path: Path, rooms: list[Example]) -> None:
    scene = Re10kScenes([make_root(tmp_path / "root", [rooms])], "test").scene(0)
    write_scene(scene, tmp_path / "folder", "nerfstudio")
    read = open_scene(tmp_path / "folder")
    assert (read.records[4].load() == scene.records[4].load()).all()
    torch.testing.assert_close(read.cameras().c2w, scene.cameras().c2w)


def test_a_scene_that_the_chunk_lacks(tmp_path: Path, rooms: list[Example]) -> None:
    root = make_root(tmp_path, [rooms])
    index = json.loads((root / "test" / "index.json").read_text())
    (root / "test" / "index.json").write_text(json.dumps({**index, "absent": "000000.torch"}))
    scenes = Re10kScenes([root], "test")
    with pytest.raises(UserError, match=r"000000.torch lacks scene absent"):
        scenes.scene(3)


def test_damaged_chunks(tmp_path: Path, rooms: list[Example]) -> None:
    root = make_root(tmp_path, [rooms])
    path = root / "test" / "000000.torch"
    data = path.read_bytes()
    for content in (data[: len(data) // 2], b"", b"nonsense"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is not a readable chunk"):
            Re10kScenes([root], "test").scene(0)
    packed = tmp_path / "c.bl2"
    packed.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="is not a readable chunk"):
        read_chunk(packed)
    del rooms[0]["cameras"]
    torch.save(rooms, path)
    with pytest.raises(UserError, match="scene room0000 lacks cameras"):
        read_chunk(path)


class _Runs:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_chunks_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save([{"key": _Runs()}], "bad.torch")
    with pytest.raises(UserError, match="is not a readable chunk"):
        read_chunk(Path("bad.torch"))
    assert not Path("ran").exists()


def test_latents(tmp_path: Path, rooms: list[Example]) -> None:
    rooms[0]["vae_latents"] = {"mean": torch.ones(5, 4, 3, 5).bfloat16(), "std": torch.zeros(5, 4, 3, 5)}
    scenes = Re10kScenes([make_root(tmp_path, [rooms])], "test")
    mean, std = scenes.latents(0)
    assert (mean.shape, mean.dtype, float(std.sum())) == ((5, 4, 3, 5), torch.bfloat16, 0)
    with pytest.raises(UserError, match="scene room0001 holds no latents"):
        scenes.latents(1)


def test_field_of_view() -> None:
    angles = fields_of_view(pinhole(20.0, 20, 40))
    torch.testing.assert_close(angles, torch.tensor([90.0, 53.130102]).double())


def test_the_small_data_set(parity_data: Path) -> None:
    """Recorded data of the originals' layout, plain and compressed."""
    plain, packed = (Re10kScenes([parity_data / name], "test") for name in ("re10k_mini", "re10k_mini_bl2"))
    assert [plain.key(i) for i in range(2)] == ["13579bdf02468ace", "fedcba9876543210"]
    for i in range(2):
        torch.testing.assert_close(plain.scene(i).views().images, packed.scene(i).views().images)
        row = plain.example(i)[0]["cameras"]
        torch.testing.assert_close(camera_rows(example_cameras(plain.example(i)[0], (90, 160))), row)
