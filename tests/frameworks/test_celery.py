"""Celery's prefork pool, as its page says, with a new process for each task and a broker of files."""

import os
import subprocess
import sys

import pytest

from frameworks.stage import application

pytestmark = pytest.mark.slow

TASKS = 6

AROUND = """
    import os, pathlib

    pathlib.Path("broker").mkdir(exist_ok=True)
    app.conf.update(
        broker_url="filesystem://",
        broker_transport_options={"data_folder_in": "broker", "data_folder_out": "broker", "control_folder": "control"},
        worker_max_tasks_per_child=1,
        worker_concurrency=2,
        task_ignore_result=True,
    )

    @app.task
    def job(n):
        work(n)
        pathlib.Path(f"done-{n}").touch()
"""


def test_celery_with_a_process_for_each_task_loses_nothing_to_a_sigterm_in_an_outage(stage):
    """Each process ends right after its task, before anything of it was due to be sealed."""
    stage.write("app.py", application("celery", AROUND))
    stage.start("-m", "celery", "-A", "app", "worker", "--loglevel", "warning", "--without-gossip", "--without-mingle")
    ask(stage, 0, TASKS // 2)
    stage.until(lambda: stage.collector.report()["logs"]["unique"] > 0)
    stage.collector.stop_listening()
    ask(stage, TASKS // 2, TASKS // 2)

    assert stage.terminate() == 0

    stage.collector.listen_again()
    stage.drain()
    stage.all_arrived(TASKS)


def ask(stage, first, count):
    """Put tasks into the queue, and wait until they are done."""
    program = f"from app import job\nfor n in range({first}, {first + count}): job.delay(n)"
    environment = {**os.environ, "OTEL_SDK_DISABLED": "true", "SURGETANK_PERSISTENCE_ENABLED": "false"}
    subprocess.run([sys.executable, "-c", program], cwd=stage.folder, env=environment, check=True, timeout=60)
    stage.until(lambda: all((stage.folder / f"done-{n}").exists() for n in range(first, first + count)))
