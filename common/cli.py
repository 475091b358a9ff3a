"""Command-line helpers: booleans that mean what they say, `A x B` sizes, logging set-up and progress bars."""

from __future__ import annotations

import argparse
import logging
import math
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def boolean(text: str) -> bool:
    """Parse the value of a boolean flag: `True` or `False` in any case, also 1/0 and yes/no."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return values[text.lower()]


def positive(kind: type[float]) -> Callable[[str], float]:
    """An argparse type: an int or float above zero."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} must be above 0")
        return value

    parse.__name__ = kind.__name__  # argparse says 'invalid int value'
    return parse


def add_boolean(parser: argparse.ArgumentParser, *flags: str, default: bool = False, help: str) -> None:
    """Add a flag that accepts nothing (meaning True), `True` or `False`."""
    parser.add_argument(
        *flags, type=boolean, nargs="?", const=True, default=default, metavar="BOOL", help=help
    )


def command_parser(description: str, examples: str) -> argparse.ArgumentParser:
    """An ArgumentParser whose `--help` ends with examples, one command per line."""
    return argparse.ArgumentParser(
        description=description,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def split_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Separate `key.path=value` words, wherever they stand, from a command line's flags."""
    overrides = [word for word in words if re.match(r"[A-Za-z_]\w*(\.\w+)+=", word)]
    return overrides, [word for word in words if word not in overrides]


def setup_logging(level: int = logging.INFO) -> None:
    """Send the log to stderr as bare lines; libraries that chatter are kept to warnings."""
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr, force=True)
    for noisy in (
        *("PIL", "matplotlib", "trimesh", "accelerate", "imageio", "imageio_ffmpeg", "torch"),
        *("httpx", "httpx2", "botocore", "aiobotocore", "numexpr"),
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def progress(
    items: Iterable[T], description: str, total: int | None = None, unit: str = "it", **options: Any
):
    """Iterate with a progress bar that shows rate and time left (tqdm, on stderr)."""
    from tqdm import tqdm

    return tqdm(items, desc=description, total=total, unit=unit, dynamic_ncols=True, **options)
