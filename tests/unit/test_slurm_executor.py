"""What the executor for Slurm does with Slurm's answers, without a cluster; the same on a real one is in tests/slurm."""

import asyncio
import threading
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.utils import format_cli_value, is_quoted

import snakemake_executor_plugin_excise_slurm as plugin
from snakemake_executor_plugin_excise_slurm import queue, request, shape, takeover, words
from tests.unit.slurm import programs

__all__ = ["programs"]


class Pool:
    """Notes what is to be submitted."""

    def __init__(self):
        self.submitted = []

    def submit(self, function, job):
        self.submitted.append(job)


@pytest.fixture
def executor(monkeypatch):
    """The real class, as its ``__post_init__`` leaves it, with what it reports noted and no pauses."""
    monkeypatch.setattr(takeover, "LONGEST_PAUSE", 0.0)
    made = plugin.Executor.__new__(plugin.Executor)
    made.said, made.errors, made.successes, made.accepted = [], [], [], []
    made.logger = SimpleNamespace(warning=made.said.append, info=lambda _: None, debug=lambda _: None)
    made.workflow = SimpleNamespace(executor_settings=SimpleNamespace(init_seconds_before_status_checks=10))
    made.run_uuid = "excise_run"
    made._known, made._strays, made._told, made._missing = set(), set(), set(), {}
    made._lost, made._refused, made._submitting, made._cancelled = {}, {}, 0, False
    made._noting, made._by_sacct, made._partitions, made._partition_limits = threading.Lock(), False, None, []
    made._next_seconds_between_status_checks = 10
    made._job_submission_executor = Pool()
    made.report_job_success = lambda info: made.successes.append(info.external_jobid)
    made.report_job_error = lambda info, msg=None, **_: made.errors.append(msg)
    made._report_job_error_threadsafe = lambda info, msg: made.errors.append(msg)
    made._report_job_submission_threadsafe = made.accepted.append
    return made


def wanted(place="-A one", comment="rule_x", job=None):
    job = job or SimpleNamespace(jobid=3, attempt=1, restart_times=2)
    return request.Request(job, "sbatch", "#!/bin/sh\n", comment, Path("logs/%j.log"), place)


def watch(executor, *jobs):
    """Ask once for these jobs; returns the numbers of those that go on."""

    async def ask():
        infos = [SubmittedJobInfo(f"job {number}", number, {"comment": f"rule_{number}"}) for number in jobs]
        executor._known |= set(jobs)
        return [info.external_jobid async for info in executor.check_active_jobs(infos)]

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", words.Refusal.SILENT),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", words.Refusal.SILENT),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
         "policy (job submit limit, user's size and/or time limits)", words.Refusal.FULL),
        ("sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates", words.Refusal.FULL),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", words.Refusal.FULL),
        ("sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
         "policy (job submit limit, user's size and/or time limits)", words.Refusal.FINAL),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", words.Refusal.FINAL),
        ("sbatch: error: invalid partition specified: nowhere", words.Refusal.FINAL),
        ("sbatch: error: I/O error writing script/environment to file", words.Refusal.OTHER),
    ],
)  # fmt: skip
def test_what_sbatch_means(message, meaning):
    assert words.refusal(message) is meaning


def test_a_job_that_was_accepted_while_sbatch_got_no_answer_is_found_and_not_submitted_again(executor, programs):
    folder = programs(
        sbatch='echo x >> calls; echo "Socket timed out on send/recv operation" >&2; exit 1',
        squeue='echo "41|COMPLETED|None|rule_x"; echo "42|RUNNING|None|rule_x"; echo "43|RUNNING|None|rule_y"',
    )
    executor._known = {"41"}  # an earlier attempt
    executor._submit(wanted())
    assert (folder / "calls").read_text() == "x\n"
    assert [info.external_jobid for info in executor.accepted] == ["42"]
    assert not executor.errors


def test_a_job_that_was_not_accepted_is_submitted_again_after_two_looks(executor, programs):
    folder = programs(
        sbatch='echo x >> calls; [ "$(wc -l < calls)" = 2 ] && echo 44 && exit; echo "Socket timed out" >&2; exit 1',
        squeue="echo x >> looks; [ $(wc -l < looks) -gt 1 ]",  # the first look fails
    )
    executor._submit(wanted())
    assert (folder / "looks").read_text() == "x\n" * 3
    assert [info.external_jobid for info in executor.accepted] == ["44"]


def test_a_full_queue_is_said_once_and_no_attempt_is_lost(executor, programs):
    programs(sbatch='echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1')
    one, other = (wanted(job=SimpleNamespace(jobid=number, attempt=1, restart_times=2)) for number in (1, 2))
    for job in (one, other, one):
        executor._submit(job)
    assert executor._job_submission_executor.submitted == [one.job, other.job, one.job]
    assert len(executor.said) == 1
    assert not executor.errors
    assert one.job.attempt == 1


def test_an_unknown_account_is_refused_once_for_all_jobs_that_name_it(executor, programs):
    folder = programs(
        sbatch='echo x >> calls; echo "Invalid account or account/partition combination specified" >&2; exit 1'
    )
    jobs = [wanted(), wanted(), wanted(place="-A other")]
    for job in jobs:
        executor._submit(job)
    assert (folder / "calls").read_text() == "x\n" * 2
    assert "Invalid account" in executor.errors[1]
    assert [job.job.attempt for job in jobs] == [3, 3, 3]  # the last one of three


def test_what_goes_wrong_in_the_thread_is_reported(executor):
    executor.run_job(SimpleNamespace(is_group=lambda: True))  # which has nothing that a job has
    assert "Not submitted" in executor.errors[0]


PARTITIONS = """\
PartitionName=cpu AllowGroups=ALL Default=YES QoS=N/A MaxTime=1-02:30:00 State=UP
PartitionName=gpu AllowGroups=ALL Default=NO MaxTime=00:45:00 State=UP
PartitionName=free AllowGroups=ALL Default=NO MaxTime=UNLIMITED State=UP
"""


@pytest.mark.parametrize(
    ("names", "limit"),
    [(None, ("cpu", 1590.0)), ("gpu", ("gpu", 45.0)), ("gpu,cpu", ("cpu", 1590.0)), ("free", None), ("gpu,free", None), ("no", None)],
)  # fmt: skip
def test_the_longest_time_of_a_partition(names, limit):
    assert queue.longest(queue.partitions(PARTITIONS), names) == limit


@pytest.mark.parametrize(
    ("resources", "shell", "minutes"),
    [
        ({"runtime": 60, "slurm_partition": "gpu"}, {}, 45),
        ({"runtime": 60}, {"SBATCH_PARTITION": "gpu"}, 45),
        ({"runtime": 60}, {}, 60),
        ({"runtime": 9999, "slurm_partition": "free"}, {}, 9999),
        ({"mem_mb": 1}, {}, None),
    ],
)
def test_a_job_asks_for_no_more_time_than_there_is(executor, monkeypatch, resources, shell, minutes):
    monkeypatch.delenv("SBATCH_PARTITION", raising=False)
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    executor._partition_limits = queue.partitions(PARTITIONS)
    limited = request._limited(executor, SimpleNamespace(resources=resources, jobid=1))
    assert limited.get("runtime") == minutes
    assert bool(executor.said) == (minutes == 45)


def test_account_and_partition_are_left_to_sbatch_where_the_site_names_none(executor):
    nothing = SimpleNamespace(resources={})
    assert next(executor.get_account_arg(nothing)) == executor.get_partition_arg(nothing) == ""
    given = SimpleNamespace(resources={"slurm_account": "a b", "slurm_partition": "c,d"})
    assert next(executor.get_account_arg(given)) == " -A 'a b'"
    assert executor.get_partition_arg(given) == " -p c,d"


def test_a_failed_query_is_no_news_and_states_are_one_word(executor, programs):
    programs(squeue="exit 1")
    assert watch(executor, "1") == ["1"]
    programs(squeue='echo "1|CANCELLED by 0|None|rule_1"; echo "2|RUNNING|None|rule_2"; echo "3|COMPLETED|None|rule_3"')
    assert watch(executor, "1", "2", "3") == ["2"]
    assert executor.errors == ["Slurm says of job 1: CANCELLED."]
    assert executor.successes == ["3"]


@pytest.mark.parametrize("silence", [False, True])
def test_a_job_that_slurm_forgot_has_ended_after_a_minute_of_answers(executor, programs, monkeypatch, silence):
    clock = iter(range(0, 1000, 40))
    monkeypatch.setattr(plugin, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    answers = ["", "", "exit 1" if silence else "", ""]
    goes_on = []
    for answer in answers:
        programs(squeue=answer)
        goes_on.append(watch(executor, "7"))
        if not goes_on[-1]:
            break
    assert goes_on == ([["7"]] * 4 if silence else [["7"], ["7"], []])
    assert executor.successes == ([] if silence else ["7"])  # Snakemake then looks for the outputs


def test_a_preempted_job_is_submitted_again_and_a_lost_one_five_times(executor, programs):
    programs(squeue='echo "1|PREEMPTED|None|rule_1"; echo "2|NODE_FAIL|None|rule_2"')
    for _ in range(plugin.LOST_NODES + 1):
        assert watch(executor, "1", "2") == []
    submitted = executor._job_submission_executor.submitted
    assert submitted.count("job 1") == plugin.LOST_NODES + 1
    assert submitted.count("job 2") == plugin.LOST_NODES
    assert executor.errors == ["Slurm says of job 2: NODE_FAIL."]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("PartitionTimeLimit", True),
        ("JobHeldUser", True),
        ("launch failed requeued held", True),
        ("QOSMaxWallDurationPerJobLimit", True),
        ("AssocMaxCpuPerJobLimit", True),
        ("Resources", False),
        ("Priority", False),
        ("QOSMaxJobsPerUserLimit", False),
        ("AssocGrpCpuLimit", False),
    ],
)
def test_a_job_that_never_starts_is_told_of_once(executor, programs, reason, said):
    programs(squeue=f'echo "1|PENDING|{reason}|rule_1"')
    assert watch(executor, "1") == watch(executor, "1") == ["1"]
    assert len(executor.said) == said
    assert not said or reason in executor.said[0]


def test_a_second_copy_of_a_job_is_cancelled_when_it_was_seen_twice(executor, programs):
    folder = programs(
        squeue='echo "1|RUNNING|None|rule_1"; echo "2|RUNNING|None|rule_1"; echo "3|RUNNING|None|rule_other"',
        scancel='echo "$@" >> cancelled',
    )
    executor._known = {"1"}
    executor._submitting = 1
    watch(executor, "1")
    watch(executor, "1")  # while a submission is under way its job is not known yet
    executor._submitting = 0
    watch(executor, "1")
    assert not (folder / "cancelled").exists()
    watch(executor, "1")
    watch(executor, "1")
    assert (folder / "cancelled").read_text() == "2\n"


def test_habits_of_the_shell_do_not_hide_jobs(programs, monkeypatch):
    programs(squeue='echo "$SQUEUE_STATES$SQUEUE_FORMAT"')
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SQUEUE_FORMAT", "%j")
    assert queue.ask(["squeue"])[0] == "\n"


@pytest.mark.parametrize(
    ("age", "sacct", "said"), [(300, "exit 1", None), (5, "exit 0", "sacct is asked"), (5, "exit 1", "outputs")]
)
def test_a_slurm_that_forgets_too_soon_is_told_of_at_the_start(executor, programs, age, sacct, said):
    programs(scontrol=f'echo "MinJobAge               = {age} sec"', sacct=sacct)
    executor._check_memory_of_slurm()
    assert executor._by_sacct == (said == "sacct is asked")
    assert (said is None and not executor.said) or said in executor.said[0]


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd-c1: error: StepId=5.0 exceeded memory limit (2202173440 > 2097152000), being killed",
        "[2026-11-21T20:04:36.797] error: StepId=5.0 exceeded memory limit (2202173440 > 2097152000), being killed",
    ],
    ids=["22.05", "26.05"],
)
def test_why_a_job_was_killed_is_shown(line):
    log = "\n".join(["[Sat Nov 21 20:04:05 2026]", line, "Select jobs to execute...", *"123456"])
    assert words.last_words(log) == [line]
    assert words.last_words("\n".join("abcdefgh")) == list("cdefgh")


def test_the_plugin_that_is_installed_has_the_expected_shape(monkeypatch):
    assert shape.problem() is None
    monkeypatch.setitem(shape.USED, "utils.set_gres_string", ("job", "nodes"))
    assert "no parameter 'nodes'" in shape.problem()
    monkeypatch.setitem(shape.USED, "utils.set_gres", ())
    monkeypatch.delitem(shape.USED, "utils.set_gres_string")
    assert "has no utils.set_gres" in shape.problem()
    monkeypatch.setattr(shape, "version", lambda _: "2.9.1")
    assert "2.9.1 is installed; excise was tried with 2.8" in shape.problem()


def test_the_lock_has_the_version_that_the_cures_are_for():
    assert version(shape.PLUGIN).startswith(f"{shape.VERSIONS}.")


def test_strings_are_quoted_for_the_shell():
    original = getattr(format_cli_value, "original", format_cli_value)
    quoted = shape.quoting(original, is_quoted)
    assert quoted('it\'s a "b" $x', quote=True) == "'it'\"'\"'s a \"b\" $x'"
    assert quoted("'quoted'", quote=True) == "'quoted'"
