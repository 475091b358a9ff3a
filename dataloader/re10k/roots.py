"""Folders of chunks, on this machine or another: `meta.json`, and per split `index.json` and chunk files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from dataloader.formats.shared import read_json
from dataloader.re10k.chunks import SUFFIXES
from dataloader.remote import is_remote

INDEX, META = "index.json", "meta.json"


def default_cache() -> Path:
    """Where copies of remote files are kept: $PARALLAX_CACHE, or ~/.cache/parallax."""
    return Path(os.environ.get("PARALLAX_CACHE", "") or Path.home() / ".cache" / "parallax")


@dataclass(frozen=True)
class Root:
    """A data set's folder. place: path, `s3://` or `http(s)://`. cache: for copies of remote files."""

    place: str
    cache: Path

    def file(self, *parts: str) -> Path:
        """The local path of a file of the folder; a remote one is fetched at its first use.

        Raises UserError when a remote file cannot be had. A local one need not exist.
        """
        if not is_remote(self.place):
            return Path(self.place.removeprefix("file://")).expanduser().joinpath(*parts)
        from dataloader.downloads import cached_file

        return cached_file("/".join([self.place.rstrip("/"), *parts]), self.cache)

    def meta(self) -> dict[str, Any]:
        """The content of `meta.json`; empty where a local folder has none (as the original's have not)."""
        if is_remote(self.place):
            from dataloader.remote import describe

            try:
                describe(f"{self.place.rstrip('/')}/{META}")
            except UserError as error:
                if "does not exist" in str(error):
                    return {}
                raise
        elif not self.file(META).is_file():
            return {}
        return read_json(self.file(META))

    def index(self, split: str) -> dict[str, str]:
        """Scene key -> chunk file name. Raises UserError when there is no index or it is malformed."""
        if not is_remote(self.place) and not self.file(split, INDEX).is_file():
            raise UserError(
                f"{self.place}/{split}/{INDEX} does not exist: data.root takes a folder that holds "
                f"{split}/{INDEX} and chunks"
            )
        index = read_json(self.file(split, INDEX))
        for key, chunk in index.items():
            if not isinstance(chunk, str) or Path(chunk).suffix not in SUFFIXES or "/" in chunk:
                raise UserError(
                    f"{self.place}/{split}/{INDEX}: {key} lies in {chunk!r}, which names no chunk"
                )
        return index

    def has_split(self, split: str) -> bool:
        """Whether there is an index of the split."""
        if not is_remote(self.place):
            return self.file(split, INDEX).is_file()
        from dataloader.remote import describe

        try:
            describe(f"{self.place.rstrip('/')}/{split}/{INDEX}")
        except UserError as error:
            if "does not exist" in str(error):
                return False
            raise
        return True

    def suffix(self, split: str, first: str) -> str:
        """The suffix of the split's chunk files, which the index may call by the other one.

        first: a chunk of the index. Raises UserError when the folder mixes both.
        """
        if is_remote(self.place):
            return self._remote_suffix(split, first)
        folder = self.file(split)
        found = sorted({path.suffix for path in folder.iterdir() if path.suffix in SUFFIXES})
        if len(found) > 1:
            raise UserError(f"{folder} holds .torch and .bl2 chunks: keep one kind")
        return found[0] if found else Path(first).suffix

    def check_chunks(self, split: str, files: list[str]) -> None:
        """Raise UserError when the index names a chunk that a local folder lacks. Remote ones show later."""
        local = [] if is_remote(self.place) else files
        missing = [file for file in local if not self.file(split, file).is_file()]
        if missing:
            raise UserError(
                f"{self.place}/{split}/{INDEX} names {missing[0]}, which does not exist ({len(missing)} "
                "such): get it, or write the index anew with scripts/re10k.py check --reindex"
            )

    def _remote_suffix(self, split: str, first: str) -> str:
        from dataloader.remote import describe

        stem, reasons = Path(first).stem, []
        for suffix in (Path(first).suffix, *(s for s in SUFFIXES if s != Path(first).suffix)):
            try:
                describe(f"{self.place.rstrip('/')}/{split}/{stem}{suffix}")
            except UserError as error:
                reasons.append(error)
            else:
                return suffix
        raise reasons[0]


def agreed_meta(roots: list[Root]) -> dict[str, Any]:
    """The `meta.json` that all roots share. Raises UserError when two differ."""
    first = roots[0].meta()
    for root in roots[1:]:
        meta = root.meta()
        keys = sorted(key for key in {*first, *meta} if first.get(key) != meta.get(key))
        if keys:
            raise UserError(
                f"{root.place}/{META} and {roots[0].place}/{META} differ in {', '.join(keys)}: use them apart"
            )
    return first
