"""The pages of parameters, configuration files and variables, from the code that reads them."""

from __future__ import annotations

from pathlib import Path

from docs_models import TRAINING, parameters, section
from docs_text import ROOT, UndocumentedError, cell, table

from aqnet.jobs.parameter_types import render
from aqnet.jobs.parameters import Parameter
from aqnet.training.experiment import EXPERIMENT_PRESETS
from aqnet.training.options import FLAT_NAMES, flat_values
from aqnet.variables import VARIABLES

# Title, introduction, models; every model of the package is on this page or on that of formats.
CONFIGURATION = (
    ("Manifest of stations", "`data_manifests/beijing.yaml`: measurements that ship.",
     ("Manifest", "DataFile", "SourceVariable", "Period", "Split", "Span", "WeatherSharing",
      "SuspectSpan")),
    ("Manifest of fields", "`data_manifests/caqra.yaml`, `twin.yaml`: the recipe of yearly stores.",
     ("GridManifest", "Recipe")),
    ("Experiment", "What `nbs/train/forecast.ipynb` trains: a preset, changed by its parameters, "
     "and saved in every checkpoint.",
     ("Experiment", "ModelConfig", "PhysicsConfig", "ScanConfig", "TrainingConfig")),
    ("Sweep", "The file of `aqnet sweep run`.",
     ("SweepDefinition", "Arm", "Evaluation", "Summary")),
    ("Physics experiment", "Which arms are compared in which worlds, for "
     "`nbs/evaluate/contrasts.ipynb`.",
     ("PhysicsExperiment", "ExperimentWorld", "Pair")),
    ("Profile of a cluster", "`slurm/*.yaml`, for `aqnet submit`, `preflight` and `sweep`. What "
     "each key is for, with examples: [Clusters](../slurm.md).",
     ("Profile", "Partition", "Container", "Machine", "Setting", "Required")),
    ("Layout of forecasts made elsewhere", "The file of `aqnet forecast-store import --layout`.",
     ("Layout", "VariableLayout")),
    ("World of the twin", "The settings under `recipe` of `data_manifests/twin.yaml`. Constants "
     "of the simulation have their unit in their name (`_m`, `_h`, `_m_s`, `_k`); each part names "
     "the module of `aqnet/data/twin` that uses them.",
     ("TwinConfig", "SynopticConfig", "TerrainConfig", "ClimateConfig", "MixingConfig",
      "EmissionConfig", "ChemistryConfig")),
    ("Air-quality standards", "`aqnet/verification/tables/standards.yaml`.",
     ("_Table", "_Edition", "_InForce", "_Validity")),
)  # fmt: skip


def notebooks() -> list[Path]:
    """Notebooks with a cell of parameters."""
    found = sorted((ROOT / "nbs").rglob("*.ipynb"))
    return [
        file
        for file in found
        if ".ipynb_checkpoints" not in file.parts
        and '"parameters"\n' in file.read_text(encoding="utf-8")
    ]


def _meaning(parameter: Parameter) -> str:
    unit = f" [{parameter.unit}]" if parameter.unit not in ("", "1") else ""
    return cell(parameter.help + unit)


def _kind(parameter: Parameter) -> str:
    if parameter.choices:
        return ", ".join(f"`{render(choice)}`" for choice in parameter.choices)
    low, high = parameter.minimum, parameter.maximum
    limits = [f">= {render(low)}"] * (low is not None) + [f"<= {render(high)}"] * (high is not None)
    return cell(", ".join((parameter.type, *limits)))


def _value(value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text = render(str(plain) if isinstance(plain, Path) else plain)
    return f"`{text}`" if text else ""


def undocumented() -> list[str]:
    """Parameters without a text."""
    return [
        f"{notebook.relative_to(ROOT)}: {name}"
        for notebook in notebooks()
        for name, p in parameters(notebook).items()
        if not p.help
    ]


def _presets() -> str:
    values = {name: flat_values(preset) for name, preset in EXPERIMENT_PRESETS.items()}
    rows = [
        (f"`{name}`", *(_value(values[preset][name]) for preset in EXPERIMENT_PRESETS))
        for name in FLAT_NAMES
        if name in parameters(TRAINING)
    ]
    return table(("Parameter", *(f"`{name}`" for name in EXPERIMENT_PRESETS)), rows)


def parameters_page() -> str:
    """Markdown of the page of notebook parameters."""
    if missing := undocumented():
        raise UndocumentedError(f"parameters without a text: {missing}")
    said = [
        "# Parameters of notebooks\n",
        "Generated from the cells tagged `parameters`. Given with `-p NAME=VALUE` or `-f FILE` to "
        "`aqnet run`, `submit` and `preflight`, in sweep files, and as `--name value` to compiled "
        "scripts. Lists are written `[12, 24]`, nothing is `null`. `aqnet params NOTEBOOK` shows "
        "the same.\n",
    ]
    for notebook in notebooks():
        name = notebook.relative_to(ROOT / "nbs").as_posix()
        rows = [
            (f"`{p.name}`", _kind(p), _value(p.default), _meaning(p))
            for p in parameters(notebook).values()
        ]
        said.append(f"## {name.removesuffix('.ipynb')}\n\n[{name}](../../{name})\n")
        said.append(table(("Parameter", "Value", "Default", "Meaning"), rows))
        if notebook == TRAINING:
            said.append("### Values of the presets\n\nWhat `null` stands for in each preset.\n")
            said.append(_presets())
    return "\n".join(said)


def configuration_page() -> str:
    """Markdown of the page of configuration files."""
    said = [
        "# Configuration files\n",
        "Generated from the models that read them. Unknown keys, wrong types and keys given twice "
        "are errors that name the file and the key. YAML reads `1e-4` as text: write `1.0e-4`.\n",
    ]
    for title, text, names in CONFIGURATION:
        said.append(f"## {title}\n\n{text}\n")
        said += [section(name) for name in names]
    return "\n".join(said)


def variables_page() -> str:
    """Markdown of the page of variables."""
    rows = [
        (f"`{v.name}`", cell(f"{v.long_name}, {v.definition}"), cell(v.unit),
         f"{v.valid_min:g} to {v.valid_max:g}",
         f"{v.median_min:g} to {v.median_max:g}" if v.dynamic else "",
         ", ".join(f"`{n}`" for n in v.source_names))
        for v in VARIABLES.values()
    ]  # fmt: skip
    head = ("Name", "What", "Unit", "Valid range", "Median of an hour", "Names in files")
    return "\n".join((
        "# Variables\n",
        "Generated from `aqnet.variables`, where the order is part of every format. A value beyond "
        "the valid range is an error, never clipped; a median of an hour outside its range means "
        "that a field is in another unit. More: [01 Variables](../../01_variables.ipynb).\n",
        table(head, rows),
    ))  # fmt: skip
