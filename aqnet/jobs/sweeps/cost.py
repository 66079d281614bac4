"""What the trainings of a sweep will do and cost on a cluster, before anything is written."""

from __future__ import annotations

from collections import Counter

from aqnet.jobs.prediction import predict
from aqnet.jobs.scale import experiment_in, plan_of, samples_in, scaled
from aqnet.jobs.sweeps.cluster import Cluster
from aqnet.jobs.sweeps.points import Plan, Point
from aqnet.training.cost import work_of
from aqnet.training.schedule import judged_samples

__all__ = ["describe_cost"]


def describe_cost(plan: Plan, cluster: Cluster) -> list[str]:
    """Optimiser steps, parameters and predicted GPU-hours of each setting, and of all points.

    Seeds of a setting cost the same. Samples are counted from the manifest: no data is needed.

    Raises
    ------
    ParameterError
        Batch and processes of a point do not go together.
    """
    counts = Counter(point.label for point in plan.points)
    first = {point.label: point for point in reversed(plan.points)}
    lines, total = [], 0.0
    for label, count in counts.items():
        text, hours = _setting(first[label], cluster)
        lines.append(f"  {label}: {text}" + (f" x {count} seeds" if hours and count > 1 else ""))
        total += hours * count
    if not total:
        return lines
    factor = cluster.profile.billed.value
    billed = "" if factor == 1 else f", billed as {total * factor:,.0f}"
    more = "; evaluations and starts come on top" if plan.evaluation else "; without starts"
    return [*lines, f"predicted: {total:,.0f} GPU-hours{billed}{more}"]


def _setting(point: Point, cluster: Cluster) -> tuple[str, float]:
    """Text and GPU-hours of a point; 0 if they cannot be predicted."""
    size, machine = cluster.size, cluster.profile.machine
    values = point.values | scaled(point.values, cluster.profile, size.gpus, size)
    chosen, steps = experiment_in(values), plan_of(values, size)
    if chosen is None:
        return "no training, not predicted", 0.0
    work = work_of(chosen)
    text = f"{work.parameters:,} parameters; {steps}"
    unknown = {"the section machine": ""} if machine is None else machine.unknown()
    if unknown:
        return f"{text}\n    not predicted: the profile does not state {', '.join(unknown)}", 0.0
    judged = judged_samples(chosen.training, samples_in(chosen, "validation"))
    found = predict(work, machine, steps, chosen.training, size.tasks_per_node, judged)
    cost = f"{found.hours:.2g} h, {found.gpu_hours:,.0f} GPU-hours"
    return f"{text}\n    predicted: {found.step_s:.2g} s a step, {cost}", found.gpu_hours
