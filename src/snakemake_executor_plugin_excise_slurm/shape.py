"""What this executor takes from others, checked when a run starts: another version may do other things.

Taken from snakemake-executor-plugin-slurm 2.8: the class, and the functions that write sbatch's command line.
Replaced in snakemake-interface-executor-plugins 9.4: ``format_cli_value``, which quotes for Python and not for the
shell, so that a folder with both kinds of quotes in its name breaks every job.
"""

import inspect
import shlex
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

PLUGIN = "snakemake-executor-plugin-slurm"
VERSIONS = "2.8"

USED = {
    "submit_string.get_submit_command": ("job", "params", "settings", "failed_nodes"),
    "utils.set_gres_string": ("job",),
    "utils.get_job_wildcards": ("job",),
    "validation.validate_slurm_extra": ("job",),
    "validation.validate_or_get_slurm_job_id": ("job_id", "output"),
    "partitions.get_best_partition": ("candidate_partitions", "job", "logger"),
    "job_status_query.query_job_status_sacct": ("runid",),
    "job_status_query.get_min_job_age": (),
}
"""Functions of the plugin that are called, with the parameters that they must have."""

OVERRIDDEN = ("run_job", "check_active_jobs", "cancel_jobs", "get_account_arg", "get_partition_arg", "sleep",
              "additional_general_args", "report_job_error", "_submit_job", "_report_job_error_threadsafe",
              "_report_job_submission_threadsafe")  # fmt: skip
"""Methods of its class that are called or overridden."""


def used(name: str) -> Callable[..., Any]:
    """A function of the plugin, by its module and name."""
    module, _, function = name.rpartition(".")
    found: Callable[..., Any] = getattr(import_module(f"snakemake_executor_plugin_slurm.{module}"), function)
    return found


def problem() -> str | None:
    """What is not as it was when this executor was written, or None."""
    installed = version(PLUGIN)
    cure = f"Install the one it was made for: pip install '{PLUGIN}=={VERSIONS}.*'"
    if installed != VERSIONS and not installed.startswith(f"{VERSIONS}."):
        return f"{PLUGIN} {installed} is installed; excise was tried with {VERSIONS}. {cure}"
    for name, parameters in USED.items():
        try:
            there = inspect.signature(used(name)).parameters
        except (ImportError, AttributeError):
            return f"{PLUGIN} {installed} has no {name}. {cure}"
        if missing := [parameter for parameter in parameters if parameter not in there]:
            return f"{PLUGIN} {installed}: {name} has no parameter {missing[0]!r}. {cure}"
    plugin = import_module("snakemake_executor_plugin_slurm").Executor
    if missing := [name for name in OVERRIDDEN if not callable(getattr(plugin, name, None))]:
        return f"{PLUGIN} {installed}: its executor has no {missing[0]}. {cure}"
    utils = import_module("snakemake_interface_executor_plugins.utils")
    if list(inspect.signature(utils.format_cli_value).parameters) != ["value", "quote", "base64_encode"]:
        return "snakemake-interface-executor-plugins: format_cli_value has other parameters than in 9.4; install 9.4"
    return None


def quote_for_the_shell() -> None:
    """Have strings on a job's command line quoted for the shell."""
    utils = import_module("snakemake_interface_executor_plugins.utils")
    if not getattr(utils.format_cli_value, "excise", False):
        setattr(utils, "format_cli_value", quoting(utils.format_cli_value, utils.is_quoted))  # noqa: B010


def quoting(original: Callable[..., str], is_quoted: Callable[[str], bool]) -> Callable[..., str]:
    """``format_cli_value`` with the shell's quotes."""

    def format_cli_value(value: Any, quote: bool = False, base64_encode: bool = False) -> str:
        if isinstance(value, str) and quote and not base64_encode and not is_quoted(value):
            return shlex.quote(value)
        return original(value, quote=quote, base64_encode=base64_encode)

    format_cli_value.excise = True  # type: ignore[attr-defined]
    return format_cli_value
