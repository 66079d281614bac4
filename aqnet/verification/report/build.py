"""The report of scoreboards: which pages it has, from what is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from aqnet.data.geography import BORDER_CREDIT
from aqnet.progress import Progress, silent
from aqnet.verification.bootstrap import skill_table
from aqnet.verification.groups import ALL
from aqnet.verification.report.boards import BoardFile, group_title, origin_section
from aqnet.verification.report.comparison import comparison_section
from aqnet.verification.report.episodes import BEIJING, Shown, haze_section, transect_section
from aqnet.verification.report.fields import Fields, place_fields
from aqnet.verification.report.leads import BARS, draw_rmse, draw_skill, rmse_table
from aqnet.verification.report.maps import CREDIT, draw_place_maps
from aqnet.verification.report.page import Listing, Page, Section, Text, picture
from aqnet.verification.report.physics import physics_section
from aqnet.verification.report.station_episode import StationEpisode, station_episode_section
from aqnet.verification.report.stations import stations_section
from aqnet.verification.report.tables import region_heat, score_tables, skill_heats
from aqnet.verification.report.wording import PAIRS_TEXT, joined, label
from aqnet.verification.store.reader import ForecastStore

__all__ = ["Asked", "board_report"]

_FEW_GROUPS = 4  # tables of so many groups of places stand side by side


@dataclass(frozen=True)
class Asked:
    """What a report shall show beside the scores.

    Attributes
    ----------
    group : str
        Places of scorecards and figures.
    pollutant : str
        Of maps, films and episodes.
    lead_h : int or None
        Of maps, films and episodes; None: 24 h if the store has it, else the first.
    tests : bool
        Intervals and tests; without them a report of a period too short for both is possible.
    physics : tuple of Path
        Folders of `aqnet physics` and `aqnet probe`.
    frames : int
        Of the film, at most.
    first, last : datetime64[h] or None
        Valid times of the episode at stations, UTC; None: found by a rule.
    """

    group: str = ALL
    pollutant: str = "pm25"
    lead_h: int | None = None
    tests: bool = True
    physics: tuple[Path, ...] = ()
    frames: int = 40
    first: np.datetime64 | None = None
    last: np.datetime64 | None = None


def board_report(
    files: Sequence[BoardFile],
    asked: Asked,
    fields: Fields | None = None,
    stations: StationEpisode | None = None,
    progress: Progress = silent,
) -> Page:
    """A report of one to six boards.

    Parameters
    ----------
    files : sequence of BoardFile
    asked : Asked
    fields : Fields, optional
        Store and truth of the first board: maps, film and episodes.
    stations : StationEpisode, optional
        Store of the first board and observations: an episode at stations.
    progress : callable
        Called with a text and the share done.

    Raises
    ------
    VerificationError
        A period too short for tests (`tests=False` leaves them out), boards or fields that do
        not belong together, unknown names.
    """
    sections: list[Section] = []
    if len(files) > 1:
        sections.append(comparison_section(files, asked.group))
    for number, file in enumerate(files, start=1):
        sections += _board_sections(file, asked, number if len(files) > 1 else 0)
        progress("scores", number / len(files))
    if fields is not None:
        sections += _field_sections(files[0], asked, fields, progress)
        sections.append(_credits(fields))
    if stations is not None:
        shown = _shown(asked, stations.store)
        sections.append(station_episode_section(stations, shown, asked.first, asked.last))
    if asked.physics:
        sections.append(physics_section(asked.physics))
    sections.append(origin_section(files))
    names = joined([file.model for file in files])
    times = files[0].board.times
    subtitle = (
        f"{len(times)} init times, {str(times[0])[:10]} to {str(times[-1])[:10]} (UTC), against "
        f"{joined(files[0].others)}. {files[0].days}"
    )
    return Page(f"Verification of {names}", subtitle, sections, any(f.synthetic for f in files))


# ---- scores


def _skills(file: BoardFile, groups: Sequence[str]) -> pd.DataFrame:
    parts = [skill_table(file.board, file.model, file.others, group) for group in groups]
    return pd.concat(parts, ignore_index=True)


def _board_sections(file: BoardFile, asked: Asked, number: int) -> list[Section]:
    """Scorecard, lead times and all scores; `number` tells boards apart, 0 for a single one."""
    suffix, after = (f"-{number}", f", board {number}") if number else ("", "")
    sections = []
    if asked.tests:
        skill = _skills(file, file.board.design.groups)
        chosen = skill[skill["group"] == asked.group]
        title = f"Scorecard{after}"
        sections.append(Section(f"scorecard{suffix}", title, skill_heats(file, chosen)))
        if (groups := len(file.board.design.groups)) > 1:
            tables = [region_heat(file, skill, reference) for reference in file.others]
            title = f"Scorecard by group of places{after}"
            sections.append(Section(f"groups{suffix}", title, tables, side=groups <= _FEW_GROUPS))
    sections.append(_lead_section(file, asked, suffix, after, chosen if asked.tests else None))
    text = f"{PAIRS_TEXT} Places: {group_title(asked.group)}."
    tables = score_tables(file, asked.group)
    sections.append(
        Section(f"scores{suffix}", f"All scores{after}", [Text([text]), *tables], side=True)
    )
    if "stations" in file.board.record:
        leads = file.board.design.leads
        lead = asked.lead_h if asked.lead_h in leads else 24 if 24 in leads else leads[0]
        sections.append(stations_section(file, lead, f"stations{suffix}", f"Stations{after}"))
    return sections


def _lead_section(
    file: BoardFile, asked: Asked, suffix: str, after: str, skill: pd.DataFrame | None
) -> Section:
    unit = file.lead_unit
    bars = f"{BARS} " if asked.tests else ""
    rmse = draw_rmse(rmse_table(file, asked.group, intervals=asked.tests), file.model, unit)
    where = group_title(asked.group)
    blocks = [
        picture(rmse, f"RMSE against lead time, {where}",
                f"RMSE, {where}. {bars}Vertical axes differ. {file.days}", "RMSE"),
    ]  # fmt: skip
    if skill is not None:
        caption = (f"1 - RMSE of {file.model} / RMSE of the other, {where}. {bars}Above zero: "
                   f"{file.model} has the smaller error. {file.days}")  # fmt: skip
        blocks.append(picture(draw_skill(skill, unit), "Skill against lead time", caption, "Skill"))
    return Section(f"lead{suffix}", f"Error and skill against lead time{after}", blocks)


# ---- fields


def _shown(asked: Asked, store: ForecastStore) -> Shown:
    leads = store.lead_times_h
    lead = asked.lead_h or (24 if 24 in leads else leads[0])
    return Shown(asked.pollutant, lead, store.name, asked.frames)


def _field_sections(
    file: BoardFile, asked: Asked, fields: Fields, progress: Progress
) -> list[Section]:
    shown = _shown(asked, fields.store)
    sections = [_map_section(file, fields, shown.lead_h)]
    progress("maps", 1 / 3)
    lat, lon, _ = BEIJING
    grid = fields.grid
    inside = grid.lat.min() <= lat <= grid.lat.max() and grid.lon.min() <= lon <= grid.lon.max()
    if inside:
        sections.append(haze_section(fields, shown))
    progress("maps and film", 2 / 3)
    if grid.lat.min() <= 30 <= grid.lat.max() and grid.lon.min() <= 103 <= grid.lon.max() - 5:
        sections.append(transect_section(fields, shown))
    progress("maps and film", 1)
    return sections


def _credits(fields: Fields) -> Section:
    """Whose data are shown."""
    held = fields.truth.stores[0].attributes
    names = ("title", "attribution", "licence")
    return Section("credits", "Credits", [Listing([
        *((f"truth: {name}", str(held[name])) for name in names if held.get(name)),
        ("forecasts", str(fields.store.attributes["title"])),
        ("coasts and boundaries", f"{BORDER_CREDIT} (1:50 million, public domain)."),
    ])])  # fmt: skip


def _map_section(file: BoardFile, fields: Fields, lead_h: int) -> Section:
    design = file.board.design
    found = place_fields(file.board, fields, fields.store.name)
    at = design.leads.index(lead_h) if design.lead_axis == "lead_h" else 0
    figure = draw_place_maps(fields, found, design.pollutants, at)
    names = joined([label(p) for p in design.pollutants])
    caption = (
        f"RMSE and bias (forecast - truth) of {fields.store.name} in every cell, {lead_h} h "
        f"ahead, all init times. Grey: not scored. White lines: heights of 500, 1500 and 3000 m. "
        f"{CREDIT}"
    )
    image = picture(figure, f"Maps of RMSE and bias of {names}", caption)
    return Section("maps", "Where the errors are", [image])
