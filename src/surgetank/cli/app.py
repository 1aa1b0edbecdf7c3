"""The commands: each parses its options, has the work done, prints what came of it, and exits with a code that scripts can use.

Owns: no state. Threads: one.
Invariants: nothing on disk or in the network is changed without `--apply`; with `--json` there is one JSON object on
standard output and nothing else; messages and progress go to standard error.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from surgetank._version import __version__
from surgetank.cli import chosen, show
from surgetank.cli.bench import bench
from surgetank.cli.doctor import doctor
from surgetank.cli.run import run as run_command
from surgetank.cli.sending import deliver, outlets_for
from surgetank.cli.settings import config
from surgetank.cli.top import top
from surgetank.clock import SystemClock
from surgetank.drain import ATTEMPTS
from surgetank.model import Signal
from surgetank.spool import repair as repairs
from surgetank.spool.check import check as check_spool
from surgetank.spool.export import Export
from surgetank.spool.filesystem import OsFilesystem
from surgetank.spool.survey import survey

app: Final = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
spool: Final = typer.Typer(
    no_args_is_help=True,
    help="""Look into a spool, check it, export, deliver or repair what is in it.

    Everything is read-only unless `--apply` is given, and can be used while the owners are running.""",
)


def _say_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"surgetank {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Tools for surgetank, the telemetry buffer for OpenTelemetry Python."""


app.add_typer(spool, name="spool")
app.command()(top)
app.command()(config)
app.command()(doctor)
app.command()(bench)


@app.command(
    # Its own parser's, because it works without `surgetank[cli]`; here so that the help names it.
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
)
def run(context: typer.Context) -> None:
    """Run a Python program with its telemetry protected: `surgetank run -- python app.py`."""
    run_command(context.args)


Dir = Annotated[
    str | None,
    typer.Option(
        "--dir",
        metavar="FOLDER",
        help="The spool's folder. Default: SURGETANK_SPOOL_DIR, else the one below the user's state directory.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Apply = Annotated[bool, typer.Option("--apply", help="Do it. Without this, only say what would be done.")]
KeyFile = Annotated[
    str | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help="Encryption keys, as SURGETANK_SPOOL_ENCRYPTION_KEY_FILE has them, which is the default.",
    ),
]


@spool.command()
def status(folder: Dir = None, as_json: Json = False) -> None:
    """Show who has what in the spool: owners living and dead, segments, batches, items, dead letters."""
    filesystem = OsFilesystem()
    now = SystemClock().now()
    with chosen.told():
        found = []
        for path in chosen.all_folders(filesystem, folder):
            with show.progress("reading", is_quiet=as_json) as progress:
                found.append(survey(filesystem, path, now, progress))
    if as_json:
        show.data({"spools": [each.as_data() for each in found]})
    else:
        show.surveys(found)


@spool.command()
def check(folder: Dir = None, as_json: Json = False) -> None:
    """Verify every checksum; exits with 1 if there is damage, and says where it is and what it costs."""
    filesystem = OsFilesystem()
    with chosen.told():
        path = chosen.one_folder(filesystem, folder)
        with show.progress("checking", is_quiet=as_json) as progress:
            report = check_spool(filesystem, path, progress)
    if as_json:
        show.data(report.as_data())
    else:
        show.report(report)
    raise typer.Exit(1 if report.damage else 0)


@spool.command()
def export(
    folder: Dir = None,
    signal: Annotated[Signal | None, typer.Option(help="Only this signal.")] = None,
    has_done: Annotated[
        bool, typer.Option("--done", help="Batches that are delivered and not yet removed, as well.")
    ] = False,
    is_letters: Annotated[
        bool, typer.Option("--dead-letters", help="Instead of what waits, what the receiver refused for good.")
    ] = False,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="A new file, instead of standard output.")
    ] = None,
    key_file: KeyFile = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the counts as one JSON object (to standard error where the lines are not)."),
    ] = False,
) -> None:
    """Write what waits as lines of OTLP JSON, one request a line, as an OTLP file exporter does; changes nothing."""
    filesystem = OsFilesystem()
    with chosen.told():
        path = chosen.one_folder(filesystem, folder)
        cipher = chosen.cipher(key_file)
        with (
            chosen.output(output) as stream,
            show.progress("exporting", is_quiet=as_json or (output is None and show.is_seen())) as progress,
        ):
            exporting = Export(filesystem, path, cipher, signal, has_done, progress)
            for line in exporting.letter_lines() if is_letters else exporting.lines():
                stream.write(line.encode() + b"\n")
    if as_json:
        show.data(exporting.as_data(), is_error=output is None)
    else:
        show.exported(exporting, output)
    raise typer.Exit(0 if exporting.is_complete else 1)


@spool.command()
def drain(
    endpoint: Annotated[
        str, typer.Option(metavar="URL", help="Where to: the base URL, to which each signal adds its path.")
    ],
    folder: Dir = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Sent with every request; may be repeated.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for one attempt. Default 10.")] = None,
    attempts: Annotated[int, typer.Option(min=1, help="Failures in a row after which to give up.")] = ATTEMPTS,
    key_file: KeyFile = None,
    apply: Apply = False,
    as_json: Json = False,
) -> None:
    """Send what dead owners have left to an endpoint, oldest first; living owners' batches are left to them."""
    filesystem = OsFilesystem()
    with chosen.told():
        path = chosen.one_folder(filesystem, folder)
        outlets = outlets_for(endpoint, chosen.headers(header or []), timeout)
        key_text = chosen.key_text(key_file)
        planned = survey(filesystem, path, SystemClock().now())
        urls = {signal: outlet.url for signal, outlet in outlets.items()}
        if not apply:
            if as_json:
                show.data({"applied": False, "urls": show.by_name(urls), **show.plan_data(planned)})
            else:
                show.plan(planned, urls)
            return
        with show.progress("sending", is_quiet=as_json) as progress:
            results = deliver(filesystem, path, outlets, attempts=attempts, key_text=key_text, progress=progress)
    if as_json:
        signals = {signal.value: result.as_data() for signal, result in results.items()}
        show.data({"applied": True, "urls": show.by_name(urls), **show.plan_data(planned), "signals": signals})
    else:
        show.deliveries(results, planned)
    raise typer.Exit(1 if any(each.left or each.books.dropped for each in results.values()) else 0)


@spool.command()
def repair(folder: Dir = None, apply: Apply = False, as_json: Json = False) -> None:
    """Write damaged segments of dead owners anew, with all that is good in them; the originals are kept in a backup."""
    filesystem = OsFilesystem()
    with chosen.told():
        path = chosen.one_folder(filesystem, folder)
        with show.progress("repairing" if apply else "examining", is_quiet=as_json) as progress:
            if apply:
                found = repairs.repair(filesystem, path, SystemClock(), progress)
            else:
                found = repairs.plan(filesystem, path, progress)
    if as_json:
        show.data({"applied": apply, **found.as_data()})
    else:
        show.repairs(found, is_applied=apply)
    raise typer.Exit(1 if any(patient.trouble for patient in found.patients) else 0)


def command() -> Any:
    """Return the command line, whose help shows no type for what is only there or not there."""
    root: Any = typer.main.get_command(app)
    waiting = [root]
    while waiting:
        each = waiting.pop()
        waiting += getattr(each, "commands", {}).values()
        each_help = each.get_help_option(each.make_context(each.name, [], resilient_parsing=True))
        for option in [*each.params, *([each_help] if each_help else [])]:
            if getattr(option, "is_flag", False):
                option.metavar = ""
    return root
