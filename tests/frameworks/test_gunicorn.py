"""Flask and Django under gunicorn, as their pages say: SIGTERM to the master in the middle of an outage."""

import pytest

from frameworks.stage import WORK, application, lines

pytestmark = pytest.mark.slow

FLASK = application(
    "flask",
    """
    @app.get("/work/<int:n>")
    def answer(n):
        work(n)
        return "done"
    """,
)

DJANGO_URLS = (
    """
from django.http import HttpResponse
from django.urls import path
"""
    + WORK
    + """
def answer(request, n):
    work(n)
    return HttpResponse("done")

urlpatterns = [path("work/<int:n>", answer)]
"""
)

GEVENT_SERVER = """
    import sys
    from gevent.pywsgi import WSGIServer

    def application(environ, start_response):
        name, _, n = environ["PATH_INFO"].strip("/").partition("/")
        if name == "work":
            work(int(n))
        start_response("200 OK", [])
        return [b"done"]

    WSGIServer(("127.0.0.1", int(sys.argv[1])), application, log=None).serve_forever()
"""


def serve(stage, module, *options, **variables):
    """Start gunicorn with two workers."""
    stage.start(
        *("-m", "gunicorn", "--bind", f"127.0.0.1:{stage.port}", "--workers", "2", "--no-control-socket"),
        *options,
        module,
        **variables,
    )


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each", "preload"])
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_flask_under_gunicorn_loses_nothing_to_a_sigterm_in_an_outage(stage, kind, preload):
    """Whether each worker makes its tank, or they inherit the master's."""
    stage.write("app.py", FLASK)
    serve(stage, "app:app", "--worker-class", kind, "--threads", "2", *preload)

    assert stage.through_an_outage() == 0

    stage.drain()
    stage.all_arrived(200)


def test_django_under_gunicorn_loses_nothing_to_a_sigterm_in_an_outage(stage):
    """With the synchronous worker, and loaded once; Flask has shown the rest."""
    stage.write("settings.py", "SECRET_KEY = 'x'\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'urls'\n")
    stage.write("urls.py", DJANGO_URLS)
    stage.write("wsgi.py", lines("django"))
    serve(stage, "wsgi:application", "--preload", DJANGO_SETTINGS_MODULE="settings")

    assert stage.through_an_outage() == 0

    stage.drain()
    stage.all_arrived(200)


def test_a_gevent_server_of_ones_own_loses_nothing_to_a_sigterm_in_an_outage(stage):
    """The signal arrives in gevent's hub, where nothing may wait but what is no greenlet."""
    stage.write("app.py", application("gevent", GEVENT_SERVER))
    stage.start("app.py", str(stage.port))

    assert stage.through_an_outage() == -15

    stage.drain()
    stage.all_arrived(200)


@pytest.mark.parametrize("told", ["", "import grpc.experimental.gevent; grpc.experimental.gevent.init_gevent()\n"])
def test_a_gevent_server_loses_nothing_over_grpc_either(grpc_stage, told):
    """Whether or not the application has told gRPC of gevent, as it must for calls of its own."""
    text = application("gevent", GEVENT_SERVER).replace("import surgetank\n", told + "import surgetank\n", 1)
    grpc_stage.may_miss_a_signal = True
    grpc_stage.write("app.py", text)
    grpc_stage.start("app.py", str(grpc_stage.port))

    assert grpc_stage.through_an_outage() == -15

    grpc_stage.drain()
    grpc_stage.all_arrived(200)


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each", "preload"])
@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_flask_under_gunicorn_loses_nothing_over_grpc_either(grpc_stage, kind, preload):
    """The master forks workers beside a channel of its own, and gevent patches after gRPC was imported."""
    grpc_stage.write("app.py", FLASK)
    serve(grpc_stage, "app:app", "--worker-class", kind, "--threads", "2", *preload)

    assert grpc_stage.through_an_outage() == 0

    grpc_stage.drain()
    grpc_stage.all_arrived(200)
