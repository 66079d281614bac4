"""Profiles of clusters: complete, with reasons, consistent with themselves; sizes of jobs."""

from __future__ import annotations

import copy

import pytest
import yaml
from test_structure import ROOT

from aqnet.errors import ParameterError, RunError
from aqnet.jobs.binding import check_binding, cpu_list
from aqnet.jobs.machine import Machine
from aqnet.jobs.parameter_cell import parse_parameters
from aqnet.jobs.parameters import resolve
from aqnet.jobs.profiles import (
    GIVEN,
    Profile,
    list_profiles,
    load_profile,
    parse_settings,
    seconds_of,
)
from aqnet.jobs.scale import REHEARSAL_STEPS, REHEARSAL_VALIDATION, SCALES, plan_of, scaled, size_of

LUMI = {"account": "project_1", "image": "/scratch/project_1/aqnet.sif"}
SITE = {"time": "04:00:00", "per_node": "4", "cpus_per_task": "16"}
# CPU numbers of LUMI-G: 16 cores a NUMA node, and their second threads from 64 on.
LUMI_CPUS = {n: f"{16 * n}-{16 * n + 15},{64 + 16 * n}-{79 + 16 * n}" for n in range(4)}


@pytest.fixture(scope="module")
def lumi():
    return load_profile("lumi").given(LUMI)


@pytest.fixture(scope="module")
def notebook():
    return parse_parameters(ROOT / "nbs/train/forecast.ipynb")


def content(name: str) -> dict:
    return yaml.safe_load((ROOT / "slurm" / f"{name}.yaml").read_text())


def broken(tmp_path, name: str, change) -> str:
    """Message about a profile after a change of its content."""
    changed = copy.deepcopy(content(name))
    change(changed)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(ParameterError) as error:
        load_profile(str(path))
    return str(error.value)


def test_the_profiles_of_the_repository():
    assert list_profiles() == ["cpu", "generic-cuda", "lumi"]
    assert all(load_profile(name).name == name for name in list_profiles())
    with pytest.raises(ParameterError, match="cpu, generic-cuda, lumi"):
        load_profile("lumy")


def test_what_only_the_user_knows_is_asked_for():
    assert set(load_profile("lumi").missing()) == {"account", "image"}
    for name in ("generic-cuda", "cpu"):
        assert set(load_profile(name).missing()) == set(SITE)
        assert not load_profile(name).given(SITE).missing()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c["time"].pop("reason"), "time.setting.reason"),
        (lambda c: c["time"].update(reason=" "), "time.setting.reason"),
        (lambda c: c["time"].update(kind="habit"), "time.setting.kind"),
        (lambda c: c["per_node"].pop("source"), "a fact names its source"),
        (lambda c: c["environment"]["MIOPEN_USER_DB_PATH"].pop("still_needed"), "still_needed"),
        (lambda c: c["time"].update(still_needed="look"), "still_needed"),
        (lambda c: c["partitions"][0].pop("dated"), "partitions.0.dated"),
        (lambda c: c["account"].update(required=False), "account.required"),
        (lambda c: c["cpu_masks"]["value"].pop(), "one entry per process"),
        (lambda c: c["gpu_numa"]["value"].pop(), "one entry per process"),
        (lambda c: c["rehearsal_partition"].update(value="debug-g"), "debug-g"),
        (lambda c: c["environment"].update({"A B": c["time"]}), "environment"),
        (lambda c: c.update(speed=1), "speed"),
    ],
)
def test_a_setting_without_its_reason_is_refused(tmp_path, change, text):
    assert text in broken(tmp_path, "lumi", change)


def test_settings_by_hand():
    profile = load_profile("cpu").given(SITE | {"partition": "debug", "memory_gb": "1.5"})
    assert (profile.per_node.value, profile.partition.value) == (4, "debug")
    assert profile.memory_gb.value == 1.5 and profile.per_node.kind == "choice"
    for name, text in [("per_node", "0"), ("per_node", "4.0"), ("time", "4h"), ("time", "00:00:00"),
                       ("account", "a\nb"), ("account", " "), ("memory_gb", "-1"),
                       ("partitoin", "x"), ("image", "/x.sif")]:  # fmt: skip
        with pytest.raises(ParameterError):
            load_profile("cpu").given({name: text})
    assert set(GIVEN) - {"image"} <= set(Profile.model_fields) | set(Machine.model_fields)
    with pytest.raises(ParameterError, match="one entry per process"):
        load_profile("lumi").given({"per_node": "4"})


def test_names_and_words_of_a_shell_may_be_short(tmp_path):
    changed = content("cpu")
    changed["commands"]["value"] = [["ml", "R"]]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(changed))
    profile = load_profile(str(path)).given(SITE | {"partition": "p1", "account": "x"})
    assert profile.commands.value == (("ml", "R"),) and profile.partition.value == "p1"


def test_every_name_of_a_profile_may_be_short(tmp_path):
    changed = content("lumi")
    short = {part["name"]: f"p{i}" for i, part in enumerate(changed["partitions"])}
    for part in changed["partitions"]:
        part["name"] = short[part["name"]]
    for name in ("partition", "small_partition", "rehearsal_partition"):
        changed[name] |= {"value": "p1"}
    changed["name"], changed["python"]["value"] = "g5", "py"
    changed["container"]["command"]["value"] = ["sg"]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(changed))
    found = load_profile(str(path))
    assert (found.name, found.python.value, found.container.command.value) == ("g5", "py", ("sg",))
    parts = (found.partition, found.small_partition, found.rehearsal_partition)
    assert {part.value for part in parts} == {"p1"} and found.limits("p1") is not None


def test_settings_are_given_once():
    assert parse_settings(["time=01:00:00", "python=a=b"], "p") == {
        "time": "01:00:00", "python": "a=b", "account": "p",
    }  # fmt: skip
    for items, account in [(["time"], None), (["=1"], None), (["a=1", "a=2"], None),
                           (["account=a"], "b")]:  # fmt: skip
        with pytest.raises(ParameterError):
            parse_settings(items, account)


def test_durations():
    assert [seconds_of(t) for t in ("00:15:00", "48:00:00", "2-00:00:00")] == [900, 172800, 172800]


# ---- the node of LUMI


def test_masks_of_lumi_are_the_seven_cores_beside_each_gcd(lumi):
    """Cores 49-55 beside GCD 0 (NUMA node 3), and so on, each but the first of eight."""
    masks = [int(mask, 16) for mask in lumi.cpu_masks.value]
    cores = [[bit for bit in range(64) if mask >> bit & 1] for mask in masks]
    assert [found[0] for found in cores] == [49, 57, 17, 25, 1, 9, 33, 41]
    assert all(found == list(range(found[0], found[0] + 7)) for found in cores)
    assert [found[0] // 16 for found in cores] == list(lumi.gpu_numa.value)
    assert lumi.cpus_per_task.value == 7


def test_lumi_hides_no_gpu_and_counts_tmp_as_memory(lumi):
    assert lumi.gpu_request.value == "gpus-per-node"
    hiding = {"ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"}
    assert hiding <= set(lumi.unset) and not {"gpus-per-task", "gpu-bind"} & set(lumi.srun)
    assert "/tmp is memory" in lumi.memory_gb.reason
    folders = {lumi.environment[f"MIOPEN_{name}"].value for name in ("USER_DB_PATH",
               "CUSTOM_CACHE_DIR")}  # fmt: skip
    assert folders == set(lumi.folders.value) == {"/tmp/aqnet-miopen-{job}"}
    assert lumi.machine.unknown() == {}


def test_figures_of_a_machine_are_given_by_name():
    given = load_profile("generic-cuda").given(SITE | {"gpu_memory_gb": "80", "launch_s": "0"})
    assert given.machine.known("gpu_memory_gb") == 80 and given.machine.known("launch_s") == 0
    assert given.machine.known("latency_us") is None and "latency_us" in given.machine.unknown()
    for wrong in ({"gpu_memory_gb": "0"}, {"gpu_memory_gb": "much"}, {"peak_tflops": "1"}):
        with pytest.raises(ParameterError):
            load_profile("generic-cuda").given(wrong)


def sysfs(folder, gpu_nodes):
    """The files of Linux that say which CPUs and GPUs belong to a NUMA node."""
    for node, cpus in LUMI_CPUS.items():
        path = folder / f"devices/system/node/node{node}"
        path.mkdir(parents=True)
        (path / "cpulist").write_text(cpus + "\n")
    for number, node in enumerate(gpu_nodes):
        path = folder / f"bus/pci/devices/0000:{number:02x}:00.0"
        path.mkdir(parents=True)
        (path / "numa_node").write_text(f"{node}\n")


def test_the_binding_of_lumi_passes_its_check(lumi, tmp_path):
    nodes = lumi.gpu_numa.value
    sysfs(tmp_path, nodes)
    for rank, mask in enumerate(lumi.cpu_masks.value):
        cpus = {bit for bit in range(64) if int(mask, 16) >> bit & 1}
        line = check_binding(rank, cpus, f"0000:{rank:02x}:00.0", nodes, tmp_path)
        assert f"7 CPUs on NUMA node {nodes[rank]}" in line


@pytest.mark.parametrize(
    ("rank", "cpus", "expected"),
    [
        (0, set(range(1, 8)), (3, 3, 1, 1, 0, 0, 2, 2)),  # the order that seems natural
        (0, {48, 17}, ()),  # over two nodes
        (0, {49}, (0, 3, 1, 1, 0, 0, 2, 2)),  # another kind of node than the profile's
        (0, set(range(128)), ()),  # not bound at all
    ],
)
def test_a_wrong_binding_is_found(tmp_path, rank, cpus, expected):
    sysfs(tmp_path, (3, 3, 1, 1, 0, 0, 2, 2))
    with pytest.raises(RunError, match="not bound to cores beside its GPU"):
        check_binding(rank, cpus, f"0000:{rank:02x}:00.0", expected, tmp_path)


def test_an_unknown_node_of_a_gpu_is_no_agreement(tmp_path):
    sysfs(tmp_path, (-1,))
    with pytest.raises(RunError):
        check_binding(0, {49}, "0000:00:00.0", (), tmp_path)


def test_lists_of_cpus():
    assert cpu_list("0-2,5\n") == {0, 1, 2, 5} and cpu_list("\n") == set()


# ---- sizes


@pytest.mark.parametrize(
    ("gpus", "nodes", "effective", "steps", "rate"),
    [(128, 16, 512, 68, 2e-4 * 0.32**0.5), (400, 50, 1600, 22, 2e-4), (800, 100, 6400, 5, 4e-4)],
)
def test_presets_of_scale(lumi, notebook, gpus, nodes, effective, steps, rate):
    values = resolve(notebook, (), {"preset": "china"})
    size = size_of(lumi, gpus)
    values |= scaled(values, lumi, gpus, size)
    plan = plan_of(values, size)
    assert (size.nodes, size.tasks_per_node, size.partition) == (nodes, 8, "standard-g")
    assert SCALES[gpus].effective == plan.effective == effective
    assert plan.epoch_steps == steps and plan.peak == pytest.approx(rate)
    assert plan.samples == 4 * 8760 + 24 - 96  # 2013 to 2016, less the last lead time
    assert size.gpu_hours == gpus * 24 and values["accelerator"] == "cuda"


@pytest.mark.parametrize("gpus", [128, 400, 800])
def test_rehearsals_are_the_same_passes_on_two_nodes(lumi, notebook, gpus):
    values = resolve(notebook, (), {"preset": "china", "warmup_steps": 15})
    size = size_of(lumi, gpus, rehearsal=True)
    assert (size.gpus, size.nodes, size.clock) == (16, 2, "00:15:00")
    assert size.partition == "dev-g"
    values |= scaled(values, lumi, gpus, size)
    plan = plan_of(values, size)
    assert plan.passes == SCALES[gpus].passes and plan.steps == REHEARSAL_STEPS
    assert plan.peak == pytest.approx(2e-4 * (plan.effective / 1600) ** 0.5)
    assert values["max_validation_samples"] == REHEARSAL_VALIDATION  # twice in 15 minutes
    given = resolve(notebook, (), {"preset": "china", "max_validation_samples": 0})
    assert "max_validation_samples" not in scaled(given, lumi, gpus, size)


def test_given_batches_and_stations_keep_theirs(lumi, notebook):
    size = size_of(lumi, 400)
    given = resolve(notebook, (), {"preset": "china", "effective_batch": 3200})
    assert scaled(given, lumi, 400, size) == {"accelerator": "cuda"}
    stations = resolve(notebook, (), {"accelerator": "cpu"})
    assert scaled(stations, lumi, 400, size) == {}
    assert scaled({"run_dir": ""}, lumi, 400, size) == {}


def test_one_lead_a_pass_makes_more_samples(lumi, notebook):
    size = size_of(lumi, 400)
    counts = []
    for preset in ("china", "china_reference"):
        values = resolve(notebook, (), {"preset": preset})
        counts.append(plan_of(values | scaled(values, lumi, 400, size), size).samples)
    assert counts[1] == 4 * counts[0]


@pytest.mark.parametrize(
    ("gpus", "settings", "text"),
    [
        (12, {}, "do not fill their nodes"),
        (8 * 1025, {}, "too many nodes for standard-g (as of"),
        (8, {"time": "2-00:00:01"}, "too long for standard-g"),
        (40, {"partition": "small-g"}, "too many nodes for small-g"),
        (1, {"small_partition": "standard-g"}, "gives whole nodes only"),
    ],
)
def test_jobs_that_the_cluster_would_not_take(lumi, gpus, settings, text):
    with pytest.raises(ParameterError) as error:
        size_of(lumi.given(settings), gpus)
    assert text in str(error.value)


def test_a_part_of_a_node(lumi):
    size = size_of(lumi, 2)
    assert (size.nodes, size.tasks_per_node, size.whole_nodes) == (1, 2, False)
    assert size.partition == "small-g"
    assert size_of(lumi.given({"partition": "reserved"}), 8).partition == "reserved"
