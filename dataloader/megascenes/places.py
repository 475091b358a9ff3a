"""Where the files of MegaScenes lie: photos in two layouts, depth maps beside them, warps by their hash.

original   ROOT/CATEGORY/commons/SUBCATEGORY/FILE                       spaces of FILE as underscores
bucket     ROOT/images/012/345/commons/SUBCATEGORY/0/pictures/FILE      012345: the category's number in
                                                                        ROOT/metadata/categories.json
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError

Layout = Literal["auto", "original", "bucket"]
_BEFORE = "main/images/"  # what comes before CATEGORY in the paths of the split files
_PICTURES = "0/pictures/"
_CATEGORIES = Path("metadata/categories.json")


@dataclass(frozen=True)
class PhotoId:
    """What a split file's path says. folder: CATEGORY/commons/SUBCATEGORY. file: with its spaces."""

    folder: str
    file: str

    @property
    def category(self) -> str:
        return self.folder.split("/")[0]

    @property
    def subcategory(self) -> str:
        """What follows CATEGORY/commons/."""
        return "/".join(self.folder.split("/")[2:])


def photo_id(path: str) -> PhotoId:
    """Take a split file's path apart. Raises UserError when it leaves its folder or is of another form."""
    folder, _, file = path.rpartition(_BEFORE)[2].partition(_PICTURES)
    parts = [*folder.strip("/").split("/"), *file.split("/")]
    if len(parts) < 4 or parts[1] != "commons" or {"", ".", ".."} & set(parts) or "\0" in path:
        raise UserError(f"{path!r} is no path CATEGORY/commons/SUBCATEGORY/0/pictures/FILE")
    return PhotoId(folder.strip("/"), file)


def warp_name(source: PhotoId, target: PhotoId) -> str:
    """The file name of the warp of `source` to `target`: a SHA-1, as in the original (specs/warp_diffusion
    4.2).

    A file's stem is its name without the last four characters, so that '.jpeg' leaves a dot.
    """
    given = f"{source.folder.replace('/', '_')}_imgname:_{source.file[:-4]}"
    made = f"{target.subcategory.replace('/', '_')}_imgname:_{target.file[:-4]}"
    return hashlib.sha1(f"{given}_to_{made}".encode("utf-8", "surrogateescape")).hexdigest() + ".png"


@dataclass
class PhotoFolder:
    """Photos below a folder.

    layout: 'auto' is 'bucket' where ROOT/metadata/categories.json or ROOT/images exists. Raises UserError
    when the folder or, for the bucket's layout, categories.json is missing or malformed.
    """

    root: Path
    layout: Layout = "auto"
    numbers: dict[str, int] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise UserError(f"{self.root} is no folder: give the folder that holds the MegaScenes photos")
        if self.layout == "auto":
            bucket = (self.root / _CATEGORIES).exists() or (self.root / "images").is_dir()
            self.layout = "bucket" if bucket else "original"
        if self.layout == "bucket":
            self.numbers = read_categories(self.root / _CATEGORIES)

    def find(self, photo: PhotoId) -> Path:
        """The file of a photo. Raises UserError naming it when it is missing."""
        places = self.places(photo)
        for place in places:
            if place.is_file():
                return place
        raise UserError(f"{places[0]} does not exist: download this photo, or check the folder of photos")

    def places(self, photo: PhotoId) -> list[Path]:
        """Where a photo may lie, first where it should: spaces as underscores, else as they are."""
        if self.layout == "original":
            folder = self.root / photo.folder
            return _distinct(folder / photo.file.replace(" ", "_"), folder / photo.file)
        number = f"{self._number(photo.category):06d}"
        commons = self.root / "images" / number[:3] / number[3:] / "commons"
        inside = f"{photo.subcategory}/{_PICTURES}{photo.file}"
        return _distinct(
            commons / inside.replace(" ", "_"),
            commons / photo.subcategory / _PICTURES / photo.file.replace(" ", "_"),
            commons / inside,
        )

    def _number(self, category: str) -> int:
        for name in (category, category.replace("_", " "), category.replace(" ", "_")):
            if name in self.numbers:
                return self.numbers[name]
        raise UserError(f"{self.root / _CATEGORIES} lacks the category {category!r}: download it again")


@dataclass(frozen=True)
class DepthFolder:
    """Depth maps below a folder that mirrors the photos': the depth of PHOTOS/a/b.jpg is DEPTHS/a/b.npy."""

    root: Path
    photos: PhotoFolder

    def find(self, photo: Path) -> Path:
        """The depth map of a photo's file. Raises UserError naming it when it is missing."""
        place = self.root / photo.relative_to(self.photos.root).with_suffix(".npy")
        if not place.is_file():
            raise UserError(f"{place} does not exist: make it with scripts/megascenes.py align-depth")
        return place


def read_categories(path: Path) -> dict[str, int]:
    """Scene numbers by category from categories.json: {category: number}, or {number: category}.

    Raises UserError when the file is missing or holds something else.
    """
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
        if value and all(isinstance(name, str) and not name.isdigit() for name in value.values()):
            value = {name: number for number, name in value.items()}
        return {name: int(number) for name, number in value.items()}
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): photos in the bucket's layout need it"
        ) from None
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{path} is no list of categories and their numbers: download it again") from None


def _distinct(*places: Path) -> list[Path]:
    return list(dict.fromkeys(places))
