"""scripts/re10k.py from the command line: from camera files to checked chunks."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloader.formats import write_scene
from dataloader.re10k.chunks import read_chunk, write_chunk
from dataloader.re10k.examples import fields_of_view
from dataloader.re10k.index import read_index
from dataloader.re10k.scenes import Re10kScenes
from dataloader.scene import Scene
from dataloader.toy import make_cameras
from tests.dataloader.re10k.makers import damage, make_example, make_root

Run = Callable[..., tuple[int, str, str]]

_FPS, _FRAMES = 10, 30  # of the video that all clips are from


@pytest.fixture
def run(call_main: Run) -> Run:
    """Call the script's main in this process: exit code, stdout, stderr."""
    return partial(call_main, "scripts/re10k.py")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames at 10 per second, frame i of grey level 8 i."""
    import imageio_ffmpeg

    path = tmp_path_factory.mktemp("video") / "video.mp4"
    writer = imageio_ffmpeg.write_frames(str(path), (80, 48), fps=_FPS, codec="libx264", quality=9)
    writer.send(None)
    for i in range(_FRAMES):
        writer.send(np.full((48, 80, 3), 8 * i, np.uint8))
    writer.close()
    return path


@pytest.fixture
def site(video: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in for yt-dlp: `here*` is the video, `gone*` was removed, others cannot be reached.

    Returns the addresses asked for.
    """
    asked: list[str] = []

    class DownloadError(Exception):
        pass

    class YoutubeDL:
        def __init__(self, options: dict) -> None:
            self.options = options

        def __enter__(self):
            return self

        def __exit__(self, *error: object) -> None: ...

        def download(self, urls: list[str]) -> None:
            asked.extend(urls)
            if "v=here" in urls[0]:
                shutil.copy(video, self.options["outtmpl"].replace("%(ext)s", "mp4"))
            elif "v=gone" in urls[0]:
                raise DownloadError("ERROR: [youtube] gone: Video unavailable. This video is private")
            else:
                raise DownloadError("ERROR: Unable to download webpage: timed out")

    fake = types.ModuleType("yt_dlp")
    fake.YoutubeDL, fake.utils = YoutubeDL, types.SimpleNamespace(DownloadError=DownloadError)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yt_dlp", fake)
    return asked


def write_clip(folder: Path, key: str, video: str, times: list[int]) -> None:
    """A camera file: time stamps in microseconds."""
    rows = make_example(1, n=len(times))["cameras"].tolist()
    lines = [" ".join([str(t), *(f"{v:.9f}" for v in row)]) for t, row in zip(times, rows, strict=True)]
    folder.mkdir(exist_ok=True)
    (folder / f"{key}.txt").write_text("\n".join([f"https://www.youtube.com/watch?v={video}", *lines]))


@pytest.fixture
def cameras(tmp_path: Path) -> Path:
    """Four clips: two of one video, one of a video that is gone, one of a video out of reach."""
    folder = tmp_path / "cameras"
    write_clip(folder, "clip_a", "here1", [500_000, 900_000, 1_300_000])
    write_clip(folder, "clip_b", "here1", [1_000_000, 1_100_000])
    write_clip(folder, "clip_c", "gone1", [0, 100_000])
    write_clip(folder, "clip_d", "later1", [0, 100_000])
    return folder


def test_from_camera_files_to_chunks(run: Run, cameras: Path, site: list[str], tmp_path: Path) -> None:
    videos, frames, out = tmp_path / "videos", tmp_path / "frames", tmp_path / "re10k"
    code, text, _ = run("download", cameras, videos)
    assert (code, "1 videos fetched, 0 there already, 1 gone" in text) == (0, True)
    assert "timed out" in text
    assert "gone1\thttps://www.youtube.com/watch?v=gone1" in (videos / "vanished.txt").read_text()
    code, text, _ = run("download", cameras, videos)
    assert "0 videos fetched, 1 there already, 1 gone" in text
    assert [url.rpartition("=")[2] for url in site] == ["gone1", "here1", "later1", "later1"]

    words = ("extract", cameras, videos, frames, "--height", "24", "--width", "40")
    code, text, _ = run(*words)
    assert (code, "2 clips extracted, 0 there already, 0 left out, 2 without a video" in text) == (0, True)
    assert "0 clips extracted, 2 there already" in run(*words)[1]
    assert sorted(path.name for path in frames.iterdir()) == ["clip_a", "clip_b"]

    words = ("to-chunks", cameras, out, "--frames", frames, "--split", "test")
    code, text, _ = run(*words)
    assert (code, "1 chunks with 2 scenes made, 0 scenes there already, 2 left out" in text) == (0, True)
    assert "0 chunks with 0 scenes made, 2 scenes there already" in run(*words)[1]
    assert json.loads((out / "meta.json").read_text()) == {"expected_shape": [3, 24, 40]}
    scene = Re10kScenes([out], "test").scene(0)
    assert scene.cameras().time is not None
    assert scene.cameras().time.tolist() == [500_000, 900_000, 1_300_000]
    levels = [record.load().mean() / 8 for record in scene.records]
    assert np.abs(np.array(levels) - [5, 9, 13]).max() < 0.5


def test_downloads_in_parts(run: Run, cameras: Path, site: list[str], tmp_path: Path) -> None:
    for part in ("0/2", "1/2"):
        assert run("download", cameras, tmp_path / "v", "--shard", part)[0] == 0
    assert sorted(url.rpartition("=")[2] for url in site) == ["gone1", "here1", "later1"]
    assert "gone1" in (tmp_path / "v" / "vanished-0-of-2.txt").read_text()
    assert run("download", cameras, tmp_path / "v", "--shard", "2/2")[0] == 2
    site.clear()
    run("download", cameras, tmp_path / "v", "--shard", "0/2", "--retry")
    assert [url.rpartition("=")[2] for url in site] == ["gone1", "later1"]


def test_many_failures_in_a_row_end_the_run(run: Run, site: list[str], tmp_path: Path) -> None:
    for i in range(25):
        write_clip(tmp_path / "cameras", f"clip{i}", f"later{i}", [0, 100_000])
    code, _, err = run("download", tmp_path / "cameras", tmp_path / "v")
    assert (code, len(site)) == (2, 20)
    assert "20 downloads in a row failed" in err


def test_a_clip_beyond_the_end_of_its_video(run: Run, video: Path, tmp_path: Path, site: list[str]) -> None:
    write_clip(tmp_path / "cameras", "clip", "here1", [2_800_000, 9_000_000])
    (tmp_path / "videos").mkdir()
    shutil.copy(video, tmp_path / "videos" / "here1.mp4")
    code, text, _ = run("extract", tmp_path / "cameras", tmp_path / "videos", tmp_path / "frames")
    assert (code, "here1.mp4 has no frame at 9.00 s" in text) == (0, True)
    assert not list((tmp_path / "frames").iterdir())
    (tmp_path / "videos" / "here1.mp4").write_bytes(b"nonsense")
    assert (
        "here1.mp4 cannot be decoded"
        in run("extract", tmp_path / "cameras", tmp_path / "videos", tmp_path / "frames")[1]
    )


def test_from_scene_folders(run: Run, posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    for i, form in enumerate(("colmap", "mvsnet", "nerfstudio")):
        write_scene(posed_scene(n=4, seed=i), tmp_path / "scenes" / f"scan{i}", form)
    write_scene(posed_scene(n=4, seed=9, size=(24, 36)), tmp_path / "scenes" / "scan9", "colmap")
    out = tmp_path / "chunks"
    for part in ("0/2", "1/2"):  # two machines
        code, text, err = run("to-chunks", tmp_path / "scenes", out, "--shard", part)
        assert code == 0, err
    assert "scan9, frame 0 is 36x24, meta.json expects 32x24" in text
    scenes = Re10kScenes([out], "train")
    assert sorted(scenes.key(i) for i in range(len(scenes))) == ["scan0", "scan1", "scan2"]
    native = posed_scene(n=4, seed=1)
    read = next(scenes.scene(i) for i in range(3) if scenes.key(i) == "scan1")
    torch.testing.assert_close(read.cameras().c2w, native.cameras().c2w, rtol=0, atol=1e-5)
    assert (read.records[2].load() == native.records[2].load()).all()  # PNG, as it was


def test_h5(run: Run, posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    import h5py

    for i in range(2):
        write_scene(posed_scene(n=4 + i, seed=i), tmp_path / "scenes" / f"scan{i}", "colmap")
    words = ("to-chunks", tmp_path / "scenes", tmp_path / "h5", "--h5", "24x32", "--min_frames", "4")
    assert run(*words)[0] == 0
    with h5py.File(tmp_path / "h5" / "32x24.h5") as file:
        assert (file["1"].shape, file["1"].dtype, file["1"].chunks) == (
            (5, 24, 32, 3),
            "uint8",
            (1, 24, 32, 3),
        )
        assert file["1"].attrs["key"] == "scan1"
        native = posed_scene(n=5, seed=1)
        assert (file["1"][3] == native.records[3].load()).all()
        np.testing.assert_allclose(file["w2c"]["1"][3], native.records[3].camera.w2c, atol=1e-5)
        np.testing.assert_allclose(file["K"]["1"][3][0, 0], 1.1, atol=1e-6)
    assert len(np.load(tmp_path / "h5" / "int.npy", allow_pickle=True)) == 2
    assert run(*words)[0] == 2  # it is there


def test_compress_and_back(run: Run, tmp_path: Path) -> None:
    rooms = [make_example(seed) for seed in range(3)]
    root = make_root(tmp_path / "a", [rooms[:2], rooms[2:]])
    assert run("compress", root, tmp_path / "b")[0] == 0
    assert sorted(path.name for path in (tmp_path / "b/test").glob("0*")) == ["000000.bl2", "000001.bl2"]
    (tmp_path / "b/test/.scenes/000001.json").unlink()  # as if the run had been killed
    assert "1 chunks with 1 scenes made, 2 scenes there already" in run("compress", root, tmp_path / "b")[1]
    assert run("compress", tmp_path / "b", tmp_path / "c")[0] == 0
    for name in ("000000.torch", "000001.torch"):
        assert (tmp_path / "c/test" / name).read_bytes() == (root / "test" / name).read_bytes()
    assert json.loads((tmp_path / "c/test/index.json").read_text()) == json.loads(
        (root / "test/index.json").read_text()
    )


def test_rescale(run: Run, tmp_path: Path) -> None:
    rooms = [make_example(0), make_example(1, kind="PNG"), make_example(2)]
    damage(rooms[2], 1)
    root = make_root(tmp_path / "a", [rooms])
    code, text, _ = run("rescale", root, tmp_path / "b", "--height", "16", "--width", "16")
    assert (code, "scene room0002, frame 1 is not a readable image" in text) == (0, True)
    old, new = Re10kScenes([root], "test"), Re10kScenes([tmp_path / "b"], "test")
    assert (len(new), new.expected) == (2, (16, 16))
    before, after = old.scene(1).cameras(), new.scene(1).cameras()
    torch.testing.assert_close(after.K[:, 1, 1], before.K[:, 1, 1] * 16 / 24, rtol=1e-5, atol=0)
    vertical = fields_of_view(after)[:, 1], fields_of_view(before)[:, 1]
    torch.testing.assert_close(*vertical, rtol=1e-3, atol=0)  # the cut is not quite in the middle
    images = read_chunk(tmp_path / "b/test/000000.torch")
    kinds = [bytes(scene["images"][0][:4].tolist())[1:4] for scene in images]
    assert kinds == [b"\xd8\xff\xe0", b"PNG"]
    assert run("rescale", root, tmp_path / "c", "--min_size", "12")[0] == 0
    assert Re10kScenes([tmp_path / "c"], "test").expected == (12, 20)
    assert "choose another folder" in run("rescale", root, tmp_path / "c", "--height", "8")[2]


def test_pre_encode(run: Run, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4, 4),
        norm_num_groups=2,
        latent_channels=2,
        sample_size=8,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
    )
    vae.save_pretrained(tmp_path / "vae")
    root = make_root(tmp_path / "a", [[make_example(0)]])
    words = ("pre-encode", root, tmp_path / "b", "--vae", tmp_path / "vae", "--subfolder", "")
    code, _, err = run(*words, "--batch", "2")
    assert code == 0, err
    scenes = Re10kScenes([tmp_path / "b"], "test")
    assert scenes.meta["vae_encoded"] is True
    mean, std = scenes.latents(0)
    assert (mean.shape, mean.dtype, std.dtype) == ((5, 2, 12, 20), torch.bfloat16, torch.bfloat16)
    with torch.inference_mode():
        images = scenes.scene(0).views().images
        known = vae.eval().encode(2 * images - 1).latent_dist.mean
    torch.testing.assert_close(mean.float(), known, rtol=0.02, atol=0.02)
    assert "no AutoencoderKL can be loaded" in run(*words[:3], "--vae", tmp_path / "a")[2]


@pytest.fixture
def long_root(tmp_path: Path) -> Path:
    """A video of 60 frames that pans slowly, and one too short."""
    rooms = [make_example(0, n=60), make_example(1, n=4)]
    assert len(make_cameras(0, 60, 24, 40)) == 60
    return make_root(tmp_path / "long", [rooms])


def test_index(run: Run, long_root: Path, tmp_path: Path) -> None:
    bounds = ("--min_ctx_distance", "5", "--max_ctx_distance", "20", "--min_ctx_overlap", "0.3")
    path = tmp_path / "index.json"
    code, text, err = run("index", "v1", long_root, path, *bounds, "--previews", tmp_path / "previews")
    assert (code, "1 of 2 scenes have views" in text) == (0, True), err
    first = path.read_bytes()
    entries = read_index(path)
    assert entries["room0001"] is None
    (left, right), targets = entries["room0000"]
    assert 5 <= right - left <= 21
    assert all(left <= target <= right for target in targets)
    assert (tmp_path / "previews" / "room0000.png").is_file()
    run("index", "v1", long_root, path, *bounds)
    assert path.read_bytes() == first  # the same seed
    run("index", "video", path, tmp_path / "video.json")
    assert read_index(tmp_path / "video.json")["room0000"] == ((left, right), tuple(range(left, right + 1)))
    run("index", "dtu", long_root, tmp_path / "dtu.json", "--num_context_views", "3")
    assert read_index(tmp_path / "dtu.json")["room0000"][1] == (32, 24, 23, 44)


def test_index_with_many_sources(run: Run, long_root: Path, tmp_path: Path) -> None:
    words = ("--min_ctx_distance", "12", "--max_ctx_distance", "30", "--min_ctx_overlap", "0.2")
    code, _, err = run("index", "v2", long_root, tmp_path / "out", *words, "--num_context_views", "4")
    assert code == 0, err
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [f"evaluation_index_num_src_{k}.json" for k in (2, 3, 4)]
    entries = [read_index(tmp_path / "out" / name)["room0000"] for name in files]
    for (fewer, targets), (more, same) in pairwise(entries):
        assert set(fewer) < set(more)
        assert targets == same
        assert not set(more) & set(targets)


def test_check(run: Run, tmp_path: Path) -> None:
    rooms = [make_example(seed) for seed in range(4)]
    root = make_root(tmp_path / "root", [rooms[:2], rooms[2:]])
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"room0003": {"context": [0, 4], "target": [2]}}))
    code, text, _ = run("check", root, "--sheet", tmp_path / "sheet.png", "--eval_index", index)
    assert (code, "4, of which 0 cannot be used" in text, "40x24 (4)" in text) == (0, True, True)
    assert (tmp_path / "sheet_test.png").is_file()
    assert "1 tasks, 0 cannot be used" in text

    damage(rooms[1], 2)
    rooms[3]["cameras"][0, 0] = 0.2
    write_chunk(rooms, root / "test" / "000000.torch")
    (root / "test" / "000001.torch").unlink()
    index.write_text(json.dumps({"room0000": {"context": [0, 7], "target": [2]}}))
    code, text, err = run("check", root, "--split", "test", "--eval_index", index)
    assert (code, "000001.torch, which does not exist" in err) == (2, True)
    code, text, err = run("check", root, "--split", "test", "--reindex", "--eval_index", index)
    assert (code, "3 things cannot be used" in err) == (2, True)
    assert "scene room0001, frame 2 is not a readable image" in text
    assert "scene room0003, frame 0 sees 136 degrees" in text
    assert "names frame 7 of scene room0000, which has 5" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["download", "{}", "{}/v"], "holds no camera file"),
        (["extract", "{}", "{}/v", "{}/f"], "holds no camera file"),
        (["to-chunks", "{}", "{}/c"], "holds no scene folder"),
        (["to-chunks", "{}/none", "{}/c"], "is no folder"),
        (["compress", "{}", "{}/c"], "has no train/index.json"),
        (["rescale", "{}", "{}/c", "--quality", "101"], "--quality 101"),
        (["rescale", "{}", "{}/c", "--shard", "2"], "has no train/index.json"),
        (["index", "v1", "{}", "{}/out"], "ends in .json"),
        (["index", "v1", "{}", "{}/out.json"], "test/index.json does not exist"),
        (["index", "subset", "{}/index.json", "{}/out.json"], "needs --root"),
        (["index", "video", "{}/index.json", "{}/out.json"], "index.json cannot be read"),
        (["check", "{}"], "has no train/index.json"),
    ],
)
def test_bad_input_is_one_line(run: Run, tmp_path: Path, words: list[str], message: str) -> None:
    code, _, err = run(*(word.replace("{}", str(tmp_path)) for word in words))
    assert code == 2
    assert [message in line for line in err.splitlines() if line.startswith("error: ")] == [True]


@pytest.mark.parametrize("line", ["x 1 2", "1 2 3", "0 " + "1 " * 18 + "1"])
def test_bad_camera_files(run: Run, tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(f"https://example.org/v.mp4\n{line}\n")
    code, _, err = run("download", tmp_path, tmp_path / "v")
    assert code == 2
    assert "a.txt, line 2" in err


@pytest.mark.parametrize("name", ["", "download", "to-chunks", "index", "check"])
def test_help_has_examples(run: Run, name: str) -> None:
    code, out, _ = run(*filter(None, [name]), "--help")
    assert (code, "examples:\n  python scripts/re10k.py download" in out) == (0, True)
