"""Run folders: one format for everything that a run of a notebook leaves behind.

::

    runs/<UTC yyyymmddThhmmss>-<notebook>-<first 8 digits of the parameters' hash>/
        run.json         notebook and digest of its code, status and times (RunRecord)
        parameters.yaml  every parameter with its typed value
        provenance.json  digests of parameters, script and data; version and git state (Provenance)
        attempts/N.json  each start: job, hosts, environment, times, exit code (Attempt)
        logs/            of each start what it printed: attempt-N.log, or that of the SLURM job
        metrics.json     what the notebook measured
        checkpoints/     model states
        notebook.ipynb   executed notebook; of JupyterLab as it was saved when the run began
        script.py        of a compiled notebook that was not submitted
        report.html      report
        results.sha256   digests of what a complete run has produced
        job.sbatch, submission.json, staged/, staged.sha256
                         of a submitted run: the job as it was submitted, and all that it runs

`aqnet runs` lists, shows and compares them, and verifies every digest.

provenance.json is of schema version 2. Version 1, without attempts and digests of script, sources
and diff, is read as a version 2 that lacks them.
"""

from aqnet.jobs.runs.environment import Environment, present_environment
from aqnet.jobs.runs.folder import RunFolder
from aqnet.jobs.runs.listing import find_run, latest_run, list_runs
from aqnet.jobs.runs.naming import (
    RUN_DIR,
    notebook_label,
    parameters_hash,
    relative_path,
    require_run_dir,
)
from aqnet.jobs.runs.record import Attempt, Failure, Provenance, RunRecord

__all__ = [
    "RUN_DIR",
    "Attempt",
    "Environment",
    "Failure",
    "Provenance",
    "RunFolder",
    "RunRecord",
    "find_run",
    "latest_run",
    "list_runs",
    "notebook_label",
    "parameters_hash",
    "present_environment",
    "relative_path",
    "require_run_dir",
]
