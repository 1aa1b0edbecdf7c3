"""`install(logging=True)`: what the application logs arrives, once, and nothing that it saw before goes missing."""

import os
import subprocess
import sys
import textwrap

import pytest

import surgetank
from surgetank import Signal
from surgetank.errors import ConfigError
from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow

END = "\nassert tank.force_flush(5.0), tank.stats()\n"


@pytest.fixture
def collector():
    with Collector(keep=True) as collector:
        yield collector


def ran(collector, program, **variables):
    """Run a program, and return the bodies that arrived, with their scopes, and what it wrote to standard error."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SURGETANK_"))},
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "SURGETANK_PERSISTENCE_ENABLED": "false",
        "SURGETANK_STATUS_ENABLED": "false",
        **variables,
    }
    program = "import logging, sys, threading, surgetank\n" + textwrap.dedent(program) + END
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [
        (scope.scope.name, record.body.string_value)
        for signal, request in collector.requests
        if signal is Signal.LOGS
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    return found, done.stderr.splitlines()


def test_what_is_logged_arrives(collector):
    """With the logger's name as the scope, of threads too; at the root logger's level."""
    found, _ = ran(
        collector,
        """
        tank = surgetank.install(logging=True)
        log = logging.getLogger("shop")
        log.info("below the root logger's level")
        log.error("one %s", 1)
        thread = threading.Thread(target=log.error, args=("two",))
        thread.start(); thread.join()
        """,
    )
    assert found == [("shop", "one 1"), ("shop", "two")]


def test_nothing_is_captured_unless_asked_for(collector):
    """An application may have a handler of OpenTelemetry's already, and twice is worse than not."""
    found, errors = ran(collector, 'tank = surgetank.install()\nlogging.getLogger("shop").error("one")')
    assert (found, errors) == ([], ["one"])


@pytest.mark.parametrize("variables", [{"OTEL_LOGS_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true"}])
def test_what_is_switched_off_stays_off(collector, variables):
    found, errors = ran(
        collector,
        """
        tank = surgetank.install(logging=True)
        logging.getLogger("shop").error("one")
        print(logging.getLogger().handlers, file=sys.stderr)
        """,
        **variables,
    )
    assert (found, errors) == ([], ["one", "[]"])


@pytest.mark.parametrize("level", ["DEBUG", "WARNING"])
def test_no_line_of_the_delivery_becomes_telemetry(collector, level):
    """Ours, urllib3's and OpenTelemetry's: each delivery would cause the next."""
    found, _ = ran(
        collector,
        f"""
        logging.basicConfig(level=logging.{level}, stream=open("/dev/null", "w"))
        tank = surgetank.install(logging=True)
        for n in range(3):
            logging.getLogger("shop").error(str(n))
            assert tank.force_flush(5.0)
        logging.getLogger("surgetank.delivery").warning("ours")
        """,
    )
    assert found == [("shop", str(n)) for n in range(3)]


def test_a_line_that_opentelemetry_logs_about_a_record_is_not_captured(collector):
    """Under a limit of one attribute each record causes a warning; captured, it would cause the next, without end."""
    found, _ = ran(
        collector,
        """
        tank = surgetank.install(logging=True)
        for n in range(3):
            logging.getLogger("shop").error(str(n), extra={"a": 1, "b": object()})
        logging.getLogger("opentelemetry.trace").warning("of the application's own thread")
        """,
        OTEL_ATTRIBUTE_COUNT_LIMIT="1",
    )
    assert [body for _, body in found] == ["0", "1", "2", "of the application's own thread"]


@pytest.mark.parametrize(
    "configure",
    [
        "logging.basicConfig(format='app: %(message)s')",
        """import logging.config; logging.config.dictConfig({"version": 1, "formatters": {"f": {"format": "app: %(message)s"}},
            "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}}, "root": {"handlers": ["h"]}})""",
    ],
    ids=["basicConfig", "dictConfig"],
)
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
def test_the_applications_own_logging_works_as_without(collector, configure, is_before):
    """Set up before or after, and though `basicConfig` does nothing where there is a handler."""
    steps = [configure, "tank = surgetank.install(logging=True)"]
    steps = steps if is_before else steps[::-1]
    found, errors = ran(collector, "\n".join([*steps, 'logging.getLogger("shop").error("one")']))
    assert (found, errors) == ([("shop", "one")], ["app: one"])


def test_warnings_of_an_application_that_sets_nothing_up_are_still_shown(collector):
    """Python's last resort is switched off by any handler on the root logger."""
    found, errors = ran(
        collector,
        """
        tank = surgetank.install(logging=True)
        logging.getLogger("shop").warning("shown")
        logging.getLogger("shop").info("not shown")
        """,
    )
    assert (found, errors) == ([("shop", "shown")], ["shown"])


def test_a_handler_that_is_there_already_is_not_joined_by_a_second_one(collector):
    """Nor is ours, by a second call."""
    found, _ = ran(
        collector,
        """
        from opentelemetry.sdk._logs import LoggingHandler
        tank = surgetank.install()
        logging.getLogger().addHandler(LoggingHandler())
        assert surgetank.install(logging=True) is tank and surgetank.install(logging=True) is tank
        logging.getLogger("shop").error("one")
        """,
    )
    assert found == [("shop", "one")]
    found, _ = ran(
        collector,
        """
        surgetank.install(logging=True)
        tank = surgetank.install(logging=True)
        logging.getLogger("shop").error("two")
        """,
    )
    assert found[1:] == [("shop", "two")]


def test_arguments_that_do_not_fit_the_message_do_not_raise(collector):
    """Out of OpenTelemetry's handler they would raise into the call that logs."""
    found, errors = ran(
        collector,
        """
        tank = surgetank.install(logging=True)
        logging.getLogger("shop").info("%d", "x")
        logging.getLogger("shop").error("%d", "x")
        logging.getLogger("shop").error("after")
        """,
    )
    assert found == [("shop", "after")]
    assert "--- Logging error ---" in errors


def test_a_forked_child_captures_its_own(collector):
    found, _ = ran(
        collector,
        """
        import os
        tank = surgetank.install(logging=True)
        logging.getLogger("shop").error("parent")
        pid = os.fork()
        if pid == 0:
            logging.getLogger("shop").error("child")
            tank.shutdown(timeout=5.0)
            os._exit(0)
        os.waitpid(pid, 0)
        """,
    )
    assert sorted(body for _, body in found) == ["child", "parent"]


def test_only_true_and_false_are_taken():
    with pytest.raises(ConfigError, match="logging"):
        surgetank.install(logging="yes")
