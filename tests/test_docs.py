"""The documentation: nothing is undocumented, and what written pages name is there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click
import pytest
from test_structure import ROOMS, ROOT, modules

sys.path.insert(0, str(ROOT / ".ci" / "docs"))
import docs_commands
import docs_formats
import docs_models
import docs_reference
import docs_rooms
import docs_text
from docs_types import describe

from aqnet.cli import main
from aqnet.errors import AqnetError
from aqnet.jobs import runs
from aqnet.jobs.parameter_cell import parse_parameters
from aqnet.jobs.parameters import resolve
from aqnet.jobs.profiles import load_profile
from aqnet.jobs.sweeps import folder as sweep_folder

WRITTEN = sorted((ROOT / "nbs" / "docs").glob("*.md"))
PAGES = [*WRITTEN, ROOT / "CONTRIBUTING.md", ROOT / "slurm" / "README.md", ROOT / "README.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
# Models that are part of others, or that nobody sees in a file by themselves.
PARTS = {"DataSet", "_BiasConfig", "_Follower", "_Header"}


# ---- the generated pages


def test_every_command_option_and_parameter_is_documented():
    assert docs_commands.undocumented() == []
    assert docs_reference.undocumented() == []
    notebooks = {n.relative_to(ROOT / "nbs").as_posix() for n in docs_reference.notebooks()}
    assert {"train/forecast.ipynb", "evaluate/beijing.ipynb"} <= notebooks


def test_every_model_stands_on_one_page_and_says_what_its_fields_are():
    configuration = [name for _, _, names in docs_reference.CONFIGURATION for name in names]
    shown = [*configuration, *docs_formats.RECORDS]
    assert len(set(shown)) == len(shown)
    assert set(docs_models.models()) - PARTS == set(shown)
    models = docs_models.models()
    unsaid = {name: docs_models.undocumented(models[name]) for name in shown}
    assert {name: fields for name, fields in unsaid.items() if fields} == {}


def test_pages_name_everything_that_there_is():
    text = docs_commands.page()
    for name, command, _ in (entry for entry in docs_commands.commands() if entry[0] != "aqnet"):
        assert f"# {name}\n" in text
        for option in (p for p in command.params if isinstance(p, click.Option)):
            assert option.hidden or f"`{option.opts[0]}`" in text
    files, parameters = docs_formats.page(), docs_reference.parameters_page()
    assert "`step_sha256`" in files and "runs/<UTC" in files and "Sentinel" not in text
    assert "| `learning_rate` | `0.001` | `0.0002` | `0.0002` | `0.002` |" in parameters
    assert str(ROOT) not in text + files + parameters + docs_reference.configuration_page()


def strings(folder: Path) -> set[str]:
    """All text literals below a folder, docstrings aside."""
    found = set()
    for path in folder.rglob("*.py"):
        tree = docs_text.tree(path)
        inner = [n for n in docs_text.ast.walk(tree) if isinstance(n, docs_text.ast.Constant)]
        found |= {n.value for n in inner if isinstance(n.value, str) and "\n" not in n.value}
    return found


def test_files_of_run_and_sweep_folders_are_those_that_the_code_writes():
    written = "\n".join(sorted(strings(ROOT / "aqnet")))
    for module in (runs, sweep_folder):
        tree = re.search(r"::\n\n(.*?)\n\n", module.__doc__, re.DOTALL)[1]
        names = re.findall(r"^ {8}((?:[\w./<>-]+, )*[\w./<>-]+)  ", tree, re.MULTILINE)
        files = [file for line in names for file in line.split(", ")]
        stems = [re.split(r"/|<|N\.", file)[0].rstrip("-") for file in files]
        assert len(stems) >= 6
        assert [stem for stem in stems if stem not in written] == []


def test_rooms_are_those_of_the_structure_test():
    rows = docs_rooms.rooms_table().splitlines()[2:]
    assert len(rows) == len(ROOMS)
    assert sum(int(row.split(" | ")[2]) for row in rows) == len(modules())
    for number, row in enumerate(rows, 1):
        used = re.findall(r"\d+", row.split(" | ")[3])
        assert all(int(other) < number for other in used)


# ---- what the generators see


def test_what_is_not_documented_is_found(monkeypatch):
    @click.command(help="Do it.")
    @click.option("--silent")
    def new(silent):
        pass

    monkeypatch.setitem(main.commands, "new", new)
    assert docs_commands.undocumented() == ["aqnet new --silent"]
    with pytest.raises(docs_text.UndocumentedError, match="aqnet new --silent"):
        docs_commands.page()


def test_meanings_come_from_comments_and_docstrings(tmp_path):
    source = tmp_path / "m.py"
    source.write_text(
        "class A:\n    # above\n    # it\n    x: int\n    y: int = 1  # beside\n    z: int\n"
        "LAYOUT = {\n    'a': 1,  # first\n    'b': 2,\n}\n"
    )
    assert docs_text.field_comments(source, "A") == {"x": "above it", "y": "beside"}
    assert docs_text.item_comments(source, "LAYOUT") == {"a": "first", "b": ""}
    doc = (
        "A.\n\nAttributes\n----------\nu, v : int\n    Both\n    of them.\nw : str\n\n"
        "Notes\n-----\nMore."
    )
    assert docs_text.attributes(doc) == {"u": "Both of them.", "v": "Both of them.", "w": ""}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int | None, "whole number or null"),
        (tuple[float, ...], "list of number"),
        (dict[str, bool], "mapping of text to true or false"),
        (bool | int | float | str | None, "one value"),
    ],
)
def test_types_in_words(kind, words):
    assert describe(kind) == words


# ---- written pages


def lines_of_code(page: Path) -> list[str]:
    """Command lines of the blocks of a page, continued lines joined, comments left out."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```sh\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    blocks = [block for _, block in blocks] + re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    joined = "\n".join(blocks).replace("\\\n", " ").replace("$B ", "aqnet ")
    return [line.strip().removeprefix(".venv/bin/") for line in joined.splitlines()]


def check_command(words: list[str]) -> None:
    """Parse a command line of aqnet as click does, without doing anything."""
    command, context = main, click.Context(main, info_name="aqnet")
    while isinstance(command, click.Group):
        name = words.pop(0)
        assert name in command.commands, f"no command {name}"
        command = command.commands[name]
        context = click.Context(command, info_name=name, parent=context)
    given, surplus, _ = command.make_parser(context).parse_args(words)
    assert not surplus, f"surplus: {surplus}"
    notebook = Path(given.get("notebook") or "none")
    if "notebook" in given:
        assert (ROOT / notebook).is_file(), f"no notebook {notebook}"
    if assigned := [text for text in given.get("assignments") or () if "..." not in text]:
        resolve(parse_parameters(ROOT / notebook), assignments=assigned)
    profile = given.get("profile")
    if profile and "." not in profile:
        load_profile(profile)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_of_written_pages_exist(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    wrong = []
    for line in lines_of_code(page):
        line = re.sub(r"^(srun|for|do|light)\b ", "", line)
        abbreviated = re.search(r"\s\.\.\.(\s|$)|\w\|\w", line)
        if re.match(r"aqnet [a-z]", line) and not abbreviated:
            words = shlex.split(re.split(r" {2,}#| # |;|\(or ", line)[0])[1:]
            try:
                check_command([w for w in words if w not in ("|", "&&")])
            except (AssertionError, click.ClickException, AqnetError) as problem:
                wrong.append(f"{line}: {problem}")
        if match := re.match(r"make ([a-z-]+)", line):
            wrong += [] if match[1] in targets else [f"{line}: no such target"]
    assert wrong == []


def test_the_check_of_commands_sees_what_is_wrong():
    for text in ("data nothing", "run nbs/train/forecast.ipynb --fast", "params nbs/none.ipynb"):
        with pytest.raises((AssertionError, click.ClickException)):
            check_command(text.split())
    with pytest.raises(AqnetError, match="widht"):
        check_command(["run", "nbs/train/forecast.ipynb", "-p", "widht=3"])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_and_modules_that_written_pages_name_exist(page):
    text = page.read_text(encoding="utf-8")
    known = modules()
    wrong = []
    for name in re.findall(r"`(aqnet(?:\.[a-z_0-9]+)+)(?:\.[A-Za-z_]\w*)?`", text):
        parent, _, last = name.rpartition(".")
        inside = parent in known and re.search(rf"\b{last}\b", known[parent].read_text())
        wrong += [] if name in known or inside else [name]
    for name in re.findall(r"`((?:aqnet|nbs|tests|slurm|data_manifests)/[\w./-]+)`", text):
        made = name.endswith((".record.yaml", "/forecast.py"))
        wrong += [] if made or (ROOT / name).exists() else [name]
    assert wrong == []


def test_links_between_written_pages_lead_somewhere():
    generated = {"commands", "parameters", "configuration", "files", "variables"}
    places = {f"reference/{name}.md" for name in generated}
    places |= {"licences.md", "contributing.md", "slurm.md"}
    for page in WRITTEN:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert target in places or (page.parent / target).is_file(), f"{page.name}: {target}"
