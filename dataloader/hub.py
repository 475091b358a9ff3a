"""Models of the hub that `transformers` and `diffusers` load from, fetched to the cache that they read."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError


def snapshot(name: str, revision: str | None = None, patterns: tuple[str, ...] = ("*",)) -> Path:
    """Fetch the files of a model that match the patterns; returns their folder in the cache.

    Files that are there are not fetched again, and an interrupted one continues. Raises UserError when the
    model does not exist or is closed, the network is missing, or nothing matches.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        # asked first: without a network the library would hand out what an earlier call left unfinished
        HfApi().model_info(name, revision=revision)
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (HTTPError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"the model {name} cannot be fetched from the hub ({reason})") from None
    if not any(path.is_file() for path in folder.rglob("*")):
        raise UserError(f"the model {name} has no file that matches {' '.join(patterns)}")
    return folder
