"""Photos with depth, and hole masks, in the folders that depth completion is trained and tested on.

NYU-v2 `sync` photos with the depth that a teacher network gave them, occlusion masks of Places365, and NYU's
official test photos with measured depth (specs/scene_lifting 4.1). `scripts/depth.py` makes all three.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import UserError
from dataloader.images import read_depth, read_image

logger = logging.getLogger(__name__)

_NAMED = 5  # files that a message names before it only counts them


@dataclass(frozen=True)
class ListedPhoto:
    """A line of a filename list: paths below the data's folder, focal length in pixels."""

    photo: str
    depth: str
    focal: float


def read_filename_list(path: Path) -> list[ListedPhoto]:
    """Read lines 'PHOTO DEPTH FOCAL', such as those of nyudepthv2_test_files_with_gt.txt.

    Slashes that paths begin with are dropped. Raises UserError when the file is unreadable or empty, or a
    line is of another form or leads out of the data's folder.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a filename list ({error}): give its path") from None
    listed = [_listed_photo(line, f"{path}, line {i}") for i, line in enumerate(lines, 1) if line.strip()]
    if not listed:
        raise UserError(f"{path} lists no photo: its lines are 'PHOTO DEPTH FOCAL'")
    return listed


def _listed_photo(line: str, place: str) -> ListedPhoto:
    try:
        photo, depth, focal = line.split()
        listed = ListedPhoto(photo.lstrip("/"), depth.lstrip("/"), float(focal))
    except ValueError:
        raise UserError(f"{place}: {line.strip()!r} is not 'PHOTO DEPTH FOCAL': correct it") from None
    if ".." in (*PurePosixPath(listed.photo).parts, *PurePosixPath(listed.depth).parts):
        raise UserError(f"{place}: {line.strip()!r} leads out of the folder: correct it")
    return listed


def list_folders(root: Path, categories: tuple[str, ...] = ()) -> list[str]:
    """Names of the class folders of a folder, sorted; those asked for only, where `categories` are given.

    Raises UserError when the folder is missing or has none, or lacks one that is asked for.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder: give the folder that holds one folder per class")
    with os.scandir(root) as entries:
        found = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    lacking = sorted(set(categories) - set(found))
    if lacking:
        raise UserError(f"{root} has no folder {lacking[0]}: its classes are {', '.join(found[:_NAMED])} ...")
    if not found:
        raise UserError(f"{root} holds no folders: give the folder that holds one folder per class")
    return [name for name in found if not categories or name in categories]


def list_files(folder: Path, prefix: str, suffix: str) -> list[str]:
    """Names of a folder's files that begin and end so, sorted; none where there is no folder.

    Files whose name begins with a dot are being written, or are none of ours.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    return sorted(n for n in names if n.startswith(prefix) and n.endswith(suffix) and n[0] != ".")


@dataclass
class TeacherPhotos:
    """Photos ROOT/CLASS/rgb_XXXXX.jpg with the teacher's depth TEACHER/CLASS/rgb_XXXXX.npy, sorted by name.

    The depth is relative, in [0, 1], and 0 in the border that the teacher did not see. missing: photos that
    are left out because the teacher gave them no depth.
    """

    root: Path
    teacher: Path
    names: list[str]  # CLASS/rgb_XXXXX
    missing: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Photo [H, W, 3] and depth [H, W] >= 0. Raises UserError when a file is unreadable or they differ in
        size.
        """
        name = self.names[index]
        photo = read_image(self.root / f"{name}.jpg")
        return photo, _read_teacher_depth(self.teacher / f"{name}.npy", photo.shape[:2])


def open_teacher_photos(root: Path, teacher: Path, max_missing: float = 0.001) -> TeacherPhotos:
    """List NYU `sync` photos and the teacher's depth maps below two folders that mirror each other.

    max_missing: fraction of the photos that may lack their depth map; they are named in a warning and left
    out. Raises UserError when more do, or a folder is missing or holds no photo.
    """
    if not teacher.is_dir():
        raise UserError(f"{teacher} is no folder: make depth maps with scripts/depth.py predict-teacher")
    names, missing = [], []
    for category in list_folders(root):
        photos = [name.removesuffix(".jpg") for name in list_files(root / category, "rgb_", ".jpg")]
        mapped = set(list_files(teacher / category, "rgb_", ".npy"))
        names += [f"{category}/{photo}" for photo in photos if f"{photo}.npy" in mapped]
        missing += [f"{category}/{photo}" for photo in photos if f"{photo}.npy" not in mapped]
    if not names and not missing:
        raise UserError(f"{root} holds no photo CLASS/rgb_XXXXX.jpg: give the folder of NYU's sync photos")
    if len(missing) > max_missing * (len(names) + len(missing)):
        raise UserError(
            f"{teacher} lacks the depth of {len(missing)} of {len(names) + len(missing)} photos, such as "
            f"{missing[0]}.npy: make it with scripts/depth.py predict-teacher"
        )
    if missing:
        logger.warning(
            "warning: %d photos without a depth map are left out: %s", len(missing), _shorten(missing)
        )
    return TeacherPhotos(root, teacher, names, missing)


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def read_array(path: Path, advice: str) -> NDArray[np.generic]:
    """The array of a .npy file. Raises UserError, which ends in the advice, when it is unreadable."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): {advice}") from None
    if not isinstance(array, np.ndarray):  # an archive of several
        raise UserError(f"{path} is not one array: {advice}")
    return array


def _read_teacher_depth(path: Path, size: tuple[int, ...]) -> NDArray[np.float32]:
    depth = read_array(path, "make it again with scripts/depth.py predict-teacher")
    if depth.shape != size or depth.dtype.kind != "f":
        raise UserError(
            f"{path} holds {depth.dtype} of shape {depth.shape}, its photo is {size}: make it again"
        )
    values = depth.astype(np.float32)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() <= 0:
        raise UserError(f"{path} holds no depth (finite, at least 0, somewhere above): make it again")
    return values


@dataclass
class HoleMasks:
    """Masks ROOT/CLASS/*.npy, uint8 [h, w] of any size: 1 where the mask cuts a hole, 0 elsewhere.

    The names are kept in memory, 10 to 20 bytes each: those of all 1.8 million photos of Places365 are 30 MB.
    """

    root: Path
    categories: list[str]
    files: list[NDArray[np.bytes_]]  # per class, names without .npy

    def __post_init__(self) -> None:
        self._ends = np.cumsum([len(names) for names in self.files])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def name(self, index: int) -> str:
        category = int(np.searchsorted(self._ends, index, side="right"))
        row = index - int(self._ends[category])  # from the class's end
        return f"{self.categories[category]}/{os.fsdecode(bytes(self.files[category][row]))}"

    def load(self, index: int) -> NDArray[np.uint8]:
        """Mask `index`. Raises UserError when its file is unreadable or holds something else."""
        path = self.root / f"{self.name(index)}.npy"
        mask = read_array(path, "make it again with scripts/depth.py project-masks")
        if mask.ndim != 2 or mask.dtype.kind not in "bu" or mask.size == 0 or mask.max() > 1:
            raise UserError(f"{path} is no mask of zeros and ones [height, width]: make it again")
        return mask.astype(np.uint8)

    def choose(self, generator: torch.Generator) -> int:
        """The index of a mask drawn from a generator."""
        return int(torch.randint(len(self), (1,), generator=generator))


def open_hole_masks(root: Path) -> HoleMasks:
    """List the masks below a folder. Raises UserError when it is missing or holds none."""
    categories, files = [], []
    for category in list_folders(root):
        names = [os.fsencode(name.removesuffix(".npy")) for name in list_files(root / category, "", ".npy")]
        if names:
            categories.append(category)
            files.append(np.array(names))
    if not categories:
        raise UserError(f"{root} holds no mask CLASS/*.npy: make masks with scripts/depth.py project-masks")
    return HoleMasks(root, categories, files)


@dataclass
class DepthTestSet:
    """Photos SCENE/rgb_XXXXX.jpg with depth measured by a sensor, SCENE/sync_depth_XXXXX.png."""

    root: Path
    photos: list[ListedPhoto]

    def __len__(self) -> int:
        return len(self.photos)

    def name(self, index: int) -> str:
        return str(PurePosixPath(self.photos[index].photo).with_suffix(""))

    def load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Photo [H, W, 3] and z-depth [H, W] in metres, 0 where the sensor saw none.

        The files are in millimetres; the original divides them by 256. Raises UserError when a file is
        unreadable or the two differ in size.
        """
        listed = self.photos[index]
        photo, path = read_image(self.root / listed.photo), self.root / listed.depth
        depth = read_depth(path)
        if depth.shape != photo.shape[:2]:
            raise UserError(f"{path} is {depth.shape}, its photo {photo.shape[:2]}: make both again")
        return photo, depth


NYU_FOCAL = 518.8579  # pixels: of the Kinect's photos, as the published lists have it


def open_depth_test_set(root: Path, filenames: Path | None = None) -> DepthTestSet:
    """List the test photos below a folder, or those that a filename list names there.

    Raises UserError when there is none, or a photo or depth map is missing.
    """
    photos = read_filename_list(filenames) if filenames else _find_pairs(root)
    for listed in photos:
        for place in (listed.photo, listed.depth):
            if not (root / place).is_file():
                raise UserError(f"{root / place} does not exist: make it with scripts/depth.py nyu-splits")
    return DepthTestSet(root, photos)


def _find_pairs(root: Path) -> list[ListedPhoto]:
    found = [
        ListedPhoto(f"{scene}/{name}", f"{scene}/sync_depth_{name[4:-4]}.png", NYU_FOCAL)
        for scene in list_folders(root)
        for name in list_files(root / scene, "rgb_", ".jpg")
    ]
    if not found:
        raise UserError(
            f"{root} holds no photo SCENE/rgb_XXXXX.jpg: make it with scripts/depth.py nyu-splits"
        )
    return found
