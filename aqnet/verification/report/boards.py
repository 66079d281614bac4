"""Scoreboard files of a report: what they hold, what made them, commands that print them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aqnet.errors import explain
from aqnet.io import sha256_file
from aqnet.metrics import VerificationError
from aqnet.verification.groups import ALL
from aqnet.verification.regions import TERRAIN, load_regions
from aqnet.verification.report.page import Command, Listing, Section, Text
from aqnet.verification.report.wording import joined
from aqnet.verification.scoreboard import Scoreboard, load_scoreboard

__all__ = ["BoardFile", "group_title", "open_boards", "origin_section", "record_items"]

MOST_BOARDS = 6
TABLE_FILE = "table.csv"  # what the printed commands write


@dataclass(frozen=True, eq=False)
class BoardFile:
    """A scoreboard and the file it is from.

    Attributes
    ----------
    path : Path
        As it was given: commands repeat it.
    sha256 : str
        Of the file.
    board : Scoreboard
    model : str
        The forecast that is judged; the others of the board are what it is compared with.
    key : str
        Anchor in the page.
    """

    path: Path
    sha256: str
    board: Scoreboard
    model: str
    key: str

    @property
    def others(self) -> tuple[str, ...]:
        """Forecasts beside the model."""
        return tuple(name for name in self.board.design.forecasts if name != self.model)

    @property
    def cells(self) -> tuple[str, str]:
        """Axes of the cells of a scorecard: pollutant and lead, the latter by its name."""
        return "pollutant", self.board.design.lead_axis

    @property
    def lead_unit(self) -> str:
        """Unit of the lead times: days of one initialisation are counted from 1."""
        return "h" if self.board.design.lead_axis == "lead_h" else "day"

    @property
    def days(self) -> str:
        """What daily products are of, for captions; "" for hourly values."""
        design = self.board.design
        if not design.edition:
            return ""
        return f"Daily products, edition {design.edition} of the standards, days of {design.days}."

    @property
    def synthetic(self) -> bool:
        """Whether the truth or a forecast is simulated."""
        record = self.board.record
        parts = [record.get("truth") or {}, *record.get("stores", ())]
        return any(part.get("synthetic") for part in parts)

    def command(self, *words: str) -> str:
        """Command that writes a table of this board to `TABLE_FILE`."""
        return shlex.join(["aqnet", "scoreboard", str(self.path), *words, "--csv", TABLE_FILE])

    def table_command(self, by: Sequence[str], *words: str, **only: object) -> str:
        """The same for axes and a selection."""
        chosen = [w for axis, name in only.items() for w in ("--only", f"{axis}={name}")]
        return self.command("--by", ",".join(by), *chosen, *words)


def open_boards(paths: Sequence[Path], models: Sequence[str] = ()) -> list[BoardFile]:
    """Open one to six scoreboards.

    Parameters
    ----------
    paths : sequence of Path
    models : sequence of str
        The forecast to judge in each board; default the first of each, which is the first store
        that was scored.

    Raises
    ------
    VerificationError
        Too many or no boards, no such forecast, or a board with nothing to compare with.
    """
    if not 1 <= len(paths) <= MOST_BOARDS or (models and len(models) != len(paths)):
        raise VerificationError(
            explain("these boards cannot be reported together", found=f"{len(paths)} boards, "
                    f"{len(models)} models", expected=f"1 to {MOST_BOARDS} scoreboards, and no "
                    "or as many models", remedy="leave some out; name one model for each board")
        )  # fmt: skip
    return [_opened(p, models[i] if models else None, i) for i, p in enumerate(paths)]


def _opened(path: Path, model: str | None, index: int) -> BoardFile:
    board = load_scoreboard(path)
    names = board.design.forecasts
    if len(names) < 2 or (model is not None and model not in names):
        raise VerificationError(
            explain(f"{path} does not compare this forecast", found=list(names),
                    expected=f"{model or 'a forecast'} and at least one other",
                    remedy="score with a baseline, or choose another --model")
        )  # fmt: skip
    return BoardFile(Path(path), sha256_file(path), board, model or names[0], f"board-{index + 1}")


def group_title(name: str) -> str:
    """Words for a group of places."""
    titles = {region.name: region.title for region in load_regions()} | {ALL: "all places"}
    return titles.get(name, f"{name} (terrain)" if name in TERRAIN else name)


def _held(file: BoardFile) -> list[tuple[str, str]]:
    design, times = file.board.design, file.board.times
    everywhere = design.groups.index(ALL)
    missing = {n: int(lack[..., everywhere].sum()) for n, lack in file.board.missing.items()}
    lacking = "; ".join(f"{name} {count}" for name, count in missing.items() if count)
    weight = "stations count alike" if design.weight.startswith("one") else design.weight
    items = [
        ("file", str(file.path)),
        ("SHA-256", file.sha256),
        ("forecasts", f"{joined(design.forecasts)}; judged: {file.model}"),
        ("init times", f"{len(times)}, {times[0]} to {times[-1]} UTC"),
        ("weight of a pair", weight),
        ("pairs left out", lacking or "none: every forecast has all pairs with known truth"),
    ]
    return items + ([("days", file.days)] if file.days else [])


def record_items(record: dict) -> list[tuple[str, str]]:
    """What a record says beside its command, for a listing."""
    code, truth = record.get("code", {}), record.get("truth", {})
    items = [("written", record.get("written", "")), ("in folder", record.get("directory", ""))]
    items += [("code", ", ".join(f"{k} {v}" for k, v in code.items() if v))]
    items += [(f"truth: {key}", str(value)) for key, value in truth.items()]
    for store in record.get("stores", ()):
        text = "\n".join(f"{key} {value}" for key, value in store.items() if key != "name")
        items.append((f"forecast: {store['name']}", text))
    return [(key, text) for key, text in items if text]


def origin_section(files: Sequence[BoardFile]) -> Section:
    """Where the numbers come from: each board, the runs and data behind it, the commands."""
    parts = []
    for number, file in enumerate(files, start=1):
        record = file.board.record
        blocks = [Listing(_held(file), code=True)]
        if record:
            blocks += [Command(shlex.join(record["command"]), "The board was made by"),
                       Listing(record_items(record), code=True)]  # fmt: skip
        else:
            blocks.append(Text(["This board was made in memory: no record of what made it."]))
        parts.append(Section(file.key, f"Board {number}: {file.path.name}", blocks))
    text = (
        "Every table names the command that writes its values with all digits; it reads the "
        "scoreboard file below, and the file is the one meant if its SHA-256 is the same. "
        "Paths are those of the machine where the report was made."
    )
    return Section("origin", "Where the numbers come from", [Text([text])], parts)
