"""Rows of the table, and the table.

Called by the figures, which make rows, and by run, which prints them; calls nothing.
"""
import dataclasses
import statistics


@dataclasses.dataclass
class Row:
    """One figure beside its target. `value` None: it could not be measured, and `note` says why."""

    figure: int
    what: str
    value: float | None
    target: float
    unit: str = ""
    digits: int = 2
    note: str = ""
    least: bool = False  # the target is a minimum, not a maximum

    def passed(self):
        if self.value is None:
            return None
        return self.value >= self.target if self.least else self.value <= self.target

    def cells(self):
        verdict = {True: "pass", False: "**FAIL**", None: "not measured"}[self.passed()]
        value = "–" if self.value is None else f"{self.value:.{self.digits}f}{self.unit}"
        target = f"{'≥' if self.least else '≤'} {self.target:g}{self.unit}"
        return [str(self.figure), self.what, value, target, verdict, self.note]


def table(rows):
    head = ["", "figure", "measured", "target", "", "how it came about"]
    lines = [head, ["---"] * len(head)] + [row.cells() for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    lines[1] = ["-" * w for w in widths]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |" for line in lines)


def median_of(values):
    """Returns the median, and text that says how far the rounds lie apart."""
    return statistics.median(values), f"{len(values)} rounds, {min(values):.3g} to {max(values):.3g}"
