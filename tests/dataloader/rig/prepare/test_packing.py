"""Archives numbered in a folder."""

from pathlib import Path

from dataloader.rig.archives import open_archive
from dataloader.rig.prepare.packing import pack_into
from tests.dataloader.rig.makers import make_clip


def test_clips_get_the_next_number_once(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    first, second = tmp_path / "street", tmp_path / "park"
    assert pack_into(make_clip(), first, folder) == (folder / "scene000.h5", True)
    (folder / "scene004.h5").write_bytes(b"another one")
    assert pack_into(make_clip(seed=1), second, folder, (6, 8)) == (folder / "scene005.h5", True)
    assert pack_into(make_clip(), first, folder) == (folder / "scene000.h5", False)
    assert pack_into(make_clip(), first, folder, (6, 8)) == (folder / "scene006.h5", True)
    assert open_archive(folder / "scene005.h5").size == (6, 8)
    assert len(open_archive(folder / "scene000.h5")) == 4
    (folder / "scene000.h5").unlink()
    assert pack_into(make_clip(), first, folder)[1]
