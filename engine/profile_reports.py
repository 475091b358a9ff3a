"""What profiling a method found, as text and as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.workloads import Work

COLUMNS = (
    *("work", "count", "batch", "sources", "gflop", "gflop_each", "ms", "per_s", "tokens", "tokens_per_s"),
    *("mfu", "allocated_mib", "reserved_mib", "resident_mib", "failure"),
)
_MIB = 1 << 20


@dataclass
class Profile:
    """The measurements of one method. peak: FLOP/s of the machine in this precision."""

    method: str
    parameters: int
    trained: int
    device: str
    precision: str
    peak: float
    rows: list[Work]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        rows = [row_values(row, self.peak) for row in self.rows]
        return {**vars(self), "rows": rows}


def row_values(row: Work, peak: float) -> dict[str, Any]:
    """A row of a table by column, of those that apply."""
    values: dict[str, Any] = {"work": row.what, **(row.settings or {"count": row.count})}
    if row.measured is None:
        return values | {"failure": row.failure}
    values |= {
        "gflop": row.measured.flops / 1e9,
        "gflop_each": row.measured.flops / 1e9 / row.count,
        "ms": row.measured.seconds * 1e3,
        "per_s": row.per_second,
    }
    if row.tokens:
        values |= {"tokens": row.tokens, "tokens_per_s": row.tokens * row.per_second}
    if row.measured.flops:
        values["mfu"] = row.utilisation(peak)
    return values | {f"{kind}_mib": size / _MIB for kind, size in row.measured.memory.items()}


def format_profile(found: Profile) -> str:
    """The measurements as text."""
    head = (
        f"{found.method}: {found.parameters:,} parameters, {found.trained:,} trained\n"
        f"{found.device}, precision {found.precision}: matrix products reach {found.peak / 1e9:,.1f} GFLOP/s"
    )
    rows = [row_values(row, found.peak) for row in found.rows]
    present = {name for row in rows for name in row}
    columns = [name for name in COLUMNS if name in present]
    cells = [columns] + [[_cell(row.get(name, "-")) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([head, *lines])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
