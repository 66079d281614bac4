"""From a published file to a checkpoint of this system, and the report of what was used."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from aqnet.data.geography import china_static
from aqnet.data.normalisation import reference_constants
from aqnet.data.static import stacked_static
from aqnet.grid import GRIDS
from aqnet.io import sha256_file
from aqnet.model.domain import Domain
from aqnet.model.grid_forecaster import GridForecaster
from aqnet.model.published import PUBLISHED_INPUTS
from aqnet.model.published_import import Imported, fill_network, import_state, read_state
from aqnet.training.checkpoint import Checkpoint, write_checkpoint

__all__ = ["describe_import", "import_file", "published_domain", "save_imported"]

GRID = "reference"  # 128 x 256 cells, 10-53 N, 78-134 E, row 0 in the north


def import_file(
    path: Path,
    layout: str = "auto",
    allow_missing: Iterable[str] = (),
    allow_unused: Iterable[str] = (),
) -> Imported:
    """Read and translate a file at the published size; see `import_state` and `read_state`."""
    return import_state(read_state(path), layout, GRIDS[GRID].shape, allow_missing, allow_unused)


def published_domain() -> Domain:
    """The domain of the published model, with the terrain and the border that ship here.

    Its extent is the documented one. The authors' own mask (11,317 cells in rows 4 to 103) does not
    lie exactly on it: scores on this domain are near theirs, not theirs. Cells that the terrain
    does not reach (south of 14.9 N, sea, none in the mask) are at 0 m.
    """
    grid = GRIDS[GRID]
    fields = china_static(grid)
    static = np.nan_to_num(stacked_static(fields)).astype(np.float32)
    return Domain(grid, fields["mask"].values, static)


def save_imported(imported: Imported, source: Path, output: Path) -> str:
    """Write the forecaster as a checkpoint; returns the SHA-256 of its content.

    It has the published normalisation constants and the domain of `published_domain`, and no
    identity: the file does not say which data it was trained on.

    Raises
    ------
    ModelError
        The weights do not fit the network.
    StorageFullError
        No room; an older file is untouched.
    """
    domain, constants = published_domain(), reference_constants()
    model = GridForecaster(imported.config, domain, constants, PUBLISHED_INPUTS)
    fill_network(model.network, imported)
    notes = [
        f"imported from {source.name}, SHA-256 {sha256_file(source)}, layout {imported.layout}",
        f"normalisation constants as published, terrain and border of aqnet, grid {GRID}",
    ]
    if imported.missing:
        notes.append(f"missing in the file: {', '.join(imported.missing)}")
    checkpoint = Checkpoint(
        kind=model.kind,
        config=imported.config,
        state=model.state_dict(),
        arrays=model.arrays(),
        identity=None,
        notes=tuple(notes),
    )
    return write_checkpoint(output, checkpoint)


def describe_import(imported: Imported) -> str:
    """What was used, line by line, and what was not."""
    width = max(len(name) for name, _ in imported.used)
    lines = [
        f"layout {imported.layout}: {len(imported.used)} tensors, "
        f"{imported.parameters:,} parameters used",
        *(f"  {name:{width}}  ->  {ours}" for name, ours in imported.used),
    ]
    for title, names in (
        ("no weights, not needed", imported.buffers),
        ("not used, as allowed", imported.unused),
        ("missing, as allowed", imported.missing),
        ("new here", imported.fresh),
    ):
        if names:
            lines.append(f"{title}: {', '.join(names)}")
    return "\n".join(lines)
