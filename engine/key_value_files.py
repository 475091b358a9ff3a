"""Config files of `key = value` lines, as ConfigArgParse reads them, of original implementations."""

from __future__ import annotations

import re
from pathlib import Path

from common.errors import UserError

SUFFIX = ".txt"
_LINE = re.compile(r"(?:--)?([A-Za-z][\w-]*)\s*(?:[=:]\s*|\s+|$)(.*)")
_COMMENT = re.compile(r"\s[#;].*")
_SKIPPED = ("#", ";", "[", "---")  # comments, sections, YAML's beginning


def find_key_values(folder: Path) -> Path | None:
    """The one such file in a folder, None where there is none. Raises UserError where there are several."""
    files = [path for path in sorted(folder.glob(f"*{SUFFIX}")) if _begins_with_key(path)]
    if len(files) > 1:
        listed = ", ".join(path.name for path in files)
        raise UserError(f"{folder} holds several config files ({listed}): name one of them with -e FILE")
    return files[0] if files else None


def _begins_with_key(path: Path) -> bool:
    """Whether the first line that says anything is `key = value`; other texts may lie in the folder, too."""
    with path.open(errors="replace") as file:
        first = next((line for line in file if line.strip() and not line.startswith(_SKIPPED)), "")
    return re.match(r"(?:--)?[A-Za-z][\w-]*\s*=", first) is not None


def read_key_values(path: Path) -> dict[str, str]:
    """The lines of a file, as text; a key that stands alone is 'True'. Raises UserError for a bad line."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text: give a file of 'key = value' lines") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith(_SKIPPED):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise UserError(f"{path} line {number} is not 'key = value': {text!r}")
        if match[1] in found:
            raise UserError(f"{path} line {number} gives {match[1]!r} a second time: remove one")
        found[match[1]] = "True" if text == match[1] else _value(match[2])
    return found


def _value(text: str) -> str:
    """What stands before a comment, or between quotes."""
    quoted = re.match(r"(['\"])(.*?)\1", text)
    return quoted[2] if quoted else _COMMENT.sub("", f" {text}").strip()
