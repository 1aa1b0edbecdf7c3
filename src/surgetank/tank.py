"""The tank: the three pipelines of one process, their doors into OpenTelemetry, and their life.

Owns: the pipelines, the doors, and the deadline that a shutdown in several steps shares.
Threads: every public method from any thread.
Invariants: one deadline for all signals; `stats` balances at every moment.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from surgetank import config, lifecycle, startup, threads
from surgetank.arguments import tell_unread
from surgetank.buffer.flush import Flush, Until
from surgetank.clock import SystemClock
from surgetank.config import (
    BufferConfig,
    Compression,
    Environment,
    OutletConfig,
    Protocol,
    Timing,
    check_choice,
    check_kind,
)
from surgetank.delivery.endpoint import Endpoint
from surgetank.delivery.senders import sender_for
from surgetank.driver import REST_MAX, Loop, is_own_thread, own_work
from surgetank.errors import ConfigError
from surgetank.health import Health, Watch
from surgetank.lines import say
from surgetank.memory.monitor import Monitor
from surgetank.memory.probes import choose_probe
from surgetank.memory.reading import Probe
from surgetank.memory.settings import MemoryConfig, resolve_memory
from surgetank.model import Attempt, Clock, Sender, Signal, SignalStats, TankStats
from surgetank.otel.backpressure import PressureLogFilter, PressureSampler, Sampler, Valve
from surgetank.otel.processors import TankLogRecordProcessor, TankSpanProcessor
from surgetank.otel.reader import TankMetricReader
from surgetank.otel.self_metrics import report
from surgetank.otel.shim import suppressed
from surgetank.otel.sources import Sources
from surgetank.otel.temporality import preferred_aggregation, preferred_temporality
from surgetank.otlp.codec import Codec
from surgetank.otlp.logs import LogCodec
from surgetank.otlp.metrics import MetricCodec
from surgetank.otlp.spans import SpanCodec
from surgetank.pipeline import JOIN_TIMEOUT, Pipeline
from surgetank.presence import Presence, command, folder_for, service_name
from surgetank.pressure import MemoryWatch
from surgetank.spool.disk import Disk
from surgetank.spool.filesystem import HAS_LOCKS, Filesystem, OsFilesystem
from surgetank.spool.settings import SpoolConfig, is_homeless, is_key_usable, names_folder, resolve_spool
from surgetank.startup import place

if TYPE_CHECKING:
    from typing_extensions import Self

_logger: Final = logging.getLogger("surgetank")

# Providers shut down one after the other; doors that are closed within this many
# seconds after the shared deadline still belong to the same shutdown.
SAME_SHUTDOWN: Final = 1.0
# The least part of the traces that a sampler starts, whatever the pressure.
SAMPLER_FLOOR: Final = 1 / 64
# While something is lost, it is looked this often (seconds) for other losses, and for its end.
LOOK_PERIOD: Final = 1.0
_CLOCK: Final = ("monotonic", "now", "sleep")
_FILESYSTEM: Final = ("create", "open", "names", "unlink")
# The share of a deadline that the last metric collection may take: its callbacks are the application's.
COLLECT_SHARE: Final = 0.2


class Tank:
    """
    Holds spans, metrics and logs in bounded memory and delivers them by OTLP, over HTTP or gRPC.

    Every argument left out is read from the environment (`SURGETANK_*`, then `OTEL_*`) or takes
    its default; `docs/configuration.md` lists them all.

    Args:
        endpoint: Base URL; each signal adds its path (`/v1/traces` …). Default `http://localhost:4318`.
            gRPC: scheme, host and port; no path is added. Default `http://localhost:4317`.
        protocol: `http/protobuf` (default) or `grpc`, which needs `surgetank[grpc]`.
        spans: Limits of the spans' buffer.
        metrics: Limits of the metric data points' buffer.
        logs: Limits of the log records' buffer.
        headers: Sent with every request, such as credentials.
        timeout: Seconds for one attempt. Default 10.
        compression: `gzip` (default), `deflate` or `none`. gRPC: of calls only, default `none`.
        certificate_file: CA certificates (PEM) to trust instead of the system's.
        client_key_file: Key (PEM) for mutual TLS.
        client_certificate_file: Certificate (PEM) for mutual TLS.
        proxy: URL of an HTTP proxy; empty for none; left out, the environment decides.
        timing: Backoff and cooldown.
        spool: Where and how batches are stored on disk.
        persistence_enabled: False: nothing is stored, whatever the signals' own settings say.
        memory: How memory is watched, and buffers shrink when it runs short.
        self_metrics: Whether the tank reports metrics of its own through the global meter provider. Default: as the SDK does
            of its own (`OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED`), which is no.
        total_memory_mb: MiB for the buffers of all signals together; where their own limits add up to more,
            each shrinks in proportion. Default: none.
        shutdown_timeout: Seconds for all signals together. Default 5.
        metric_export_interval: Seconds between metric collections. Default 60.
        is_critical: Decides which spans (`SpanFields`) and log records (`LogItem`) go into the
            critical lane; default: status ERROR, severity ERROR and above.
        handle_sigterm: Whether to deliver what is held when a SIGTERM would simply kill. Default yes.
        is_threaded: False: nothing happens by itself; `force_flush` and `shutdown` do all work on their caller's
            thread. For tests, and for platforms without threads. Default True.
        clock: Time; for tests.
        outlets: Complete outlets, in place of what endpoint and its kin come to; for the drop-in classes.
        make_sender: Makes a signal's way to the network; for tests.
        filesystem: The way to the disk; for tests.
        probe: Reads the memory; for tests and odd platforms. Default: what the system has.

    Raises:
        ConfigError: A setting is outside its range, or two contradict each other.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        spans: BufferConfig | None = None,
        metrics: BufferConfig | None = None,
        logs: BufferConfig | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        compression: Compression | None = None,
        protocol: Protocol | None = None,
        certificate_file: str | None = None,
        client_key_file: str | None = None,
        client_certificate_file: str | None = None,
        proxy: str | None = None,
        timing: Timing | None = None,
        spool: SpoolConfig | None = None,
        persistence_enabled: bool | None = None,
        memory: MemoryConfig | None = None,
        self_metrics: bool | None = None,
        total_memory_mb: float | None = None,
        shutdown_timeout: float | None = None,
        metric_export_interval: float | None = None,
        is_critical: Callable[[Any], bool] | None = None,
        handle_sigterm: bool = True,
        is_threaded: bool = True,
        clock: Clock | None = None,
        outlets: Mapping[Signal, OutletConfig] | None = None,
        make_sender: Callable[[OutletConfig, Clock], Sender] | None = None,
        filesystem: Filesystem | None = None,
        probe: Probe | None = None,
    ) -> None:
        environment = self._environment = Environment()
        tell_unread(environment)
        # Everything is checked before anything is made.
        check_kind("spool", spool, SpoolConfig, 'a SpoolConfig, such as SpoolConfig(dir="/var/lib/app/spool")')
        memory_settings = resolve_memory(memory, environment)
        has_self_metrics = config.resolve_self_metrics(self_metrics, environment)
        _check_parts(is_critical=is_critical, make_sender=make_sender, probe=probe, clock=clock, filesystem=filesystem)
        for name, value in (("handle_sigterm", handle_sigterm), ("is_threaded", is_threaded)):
            if not isinstance(value, bool):
                raise ConfigError(name, value, "True or False")
        self._config = config.resolve(
            environment=environment,
            spans=spans,
            metrics=metrics,
            logs=logs,
            timing=timing,
            shutdown_timeout=shutdown_timeout,
            metric_export_interval=metric_export_interval,
            persistence_enabled=persistence_enabled,
            total_memory_mb=total_memory_mb,
            endpoint=endpoint,
            headers=headers,
            timeout=timeout,
            compression=compression,
            protocol=protocol,
            certificate_file=certificate_file,
            client_key_file=client_key_file,
            client_certificate_file=client_certificate_file,
            proxy=proxy,
            outlets=outlets,
        )
        self._clock: Clock = clock or SystemClock()
        self._is_threaded = is_threaded
        self._endpoints: dict[str, Endpoint] = {}
        self._disk = self._make_disk(spool, filesystem)
        codecs: list[Codec] = [SpanCodec(), MetricCodec(), LogCodec()]
        self._pipelines = {
            codec.signal: self._make_pipeline(codec, is_critical, make_sender or sender_for) for codec in codecs
        }
        self._memory = MemoryWatch(
            memory_settings,
            probe or choose_probe(memory_settings.limit_mb),
            self._clock,
            self._pipelines.values(),
            on_look=lifecycle.deliver_postponed,
            is_threaded=is_threaded,
        )
        self._health = Watch(self._clock)
        self._teller = Loop("surgetank-teller", self._tell, nullcontext, is_threaded=is_threaded)
        self._is_telling = self._has_told_late = False
        for pipeline in self._pipelines.values():
            pipeline.on_drop = self._have_told
        for each in self._endpoints.values():
            each.on_news = self._have_told
            each.is_losing = lambda: self.health().is_losing
        self._presence = Presence(
            folder_for(environment) if is_threaded else None, self._describe, self._clock, filesystem=filesystem
        )
        self._started_at = self._clock.now()
        self._span_processor: TankSpanProcessor | None = None
        self._log_record_processor: TankLogRecordProcessor | None = None
        self._metric_reader: TankMetricReader | None = None
        self._sources = Sources()
        self._renew_locks()
        self._shared_deadline = float("-inf")
        self._has_reported = False
        self._has_drawn_last = True
        lifecycle.watch(self, handle_sigterm=handle_sigterm)
        if self._disk is not None and self._disk.has_others():
            self._keeper.wake()
        if has_self_metrics:
            report(self)
        self._presence.announce()
        told = startup.sentences(self._config, self._in_use, None if self._disk is None else self._disk.settings)
        say(_logger, logging.INFO, "started: %s; %s; in memory %s", *told)

    def __enter__(self) -> Self:
        """Return the tank, which ends with the `with` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Shut down, as `shutdown` does by default."""
        self.shutdown()

    def __repr__(self) -> str:
        books = self.stats().by_signal()
        offered = ", ".join(f"{signal.value} {books[signal].offered}" for signal in self._in_use)
        places = ", ".join(dict.fromkeys(place(self.outlets[signal].url) for signal in self._in_use))
        return f"<Tank to {places}: {self.health().state.value}; offered {offered}>"

    @property
    def span_processor(self) -> TankSpanProcessor:
        """For `TracerProvider.add_span_processor`; the same object each time."""
        with self._doors_lock:
            if self._span_processor is None:
                self._span_processor = TankSpanProcessor(
                    self._pipelines[Signal.SPANS], lambda: self._shut_door(Signal.SPANS)
                )
            return self._span_processor

    @property
    def log_record_processor(self) -> TankLogRecordProcessor:
        """For `LoggerProvider.add_log_record_processor`; the same object each time."""
        with self._doors_lock:
            if self._log_record_processor is None:
                self._log_record_processor = TankLogRecordProcessor(
                    self._pipelines[Signal.LOGS], lambda: self._shut_door(Signal.LOGS)
                )
            return self._log_record_processor

    @property
    def metric_reader(self) -> TankMetricReader:
        """For `MeterProvider(metric_readers=[…])`; the same object each time, and good for one provider."""
        with self._doors_lock:
            if self._metric_reader is None:
                self._metric_reader = TankMetricReader(
                    self._pipelines[Signal.METRICS],
                    lambda: self._shut_door(Signal.METRICS),
                    self._clock,
                    interval=self._config.metric_export_interval,
                    timeout=self._config.metric_export_timeout,
                    preferred_temporality=preferred_temporality(self._environment),
                    preferred_aggregation=preferred_aggregation(self._environment),
                    is_threaded=self._is_threaded,
                )
            return self._metric_reader

    @property
    def pressure(self) -> Monitor:
        """How memory stands: `pressure.current` (level, scale, reading) and `pressure.subscribe(callback)`."""
        return self._memory.monitor

    def sampler(self, root: Sampler | None = None) -> PressureSampler:
        """
        Return a sampler that starts fewer traces while memory or the spans' buffer is under pressure.

        For `TracerProvider(sampler=tank.sampler())`.

        Args:
            root: The sampler to wrap; default: the SDK's own default, which samples all and follows parents.
        """
        return PressureSampler(root, self._valve(Signal.SPANS, SAMPLER_FLOOR))

    def log_filter(self) -> PressureLogFilter:
        """Return a filter for the logging handler that feeds OpenTelemetry: its level rises under pressure."""
        return PressureLogFilter(self._valve(Signal.LOGS, 0.0))

    def _valve(self, signal: Signal, floor: float) -> Valve:
        pipeline = self._pipelines[signal]
        return Valve(lambda: max(pipeline.fill, self._memory.monitor.current.level), self._clock, floor=floor)

    def add_source(self, flush: Callable[[], object]) -> None:
        """
        Name what holds items in front of a door, such as a batch processor before an exporter.

        Args:
            flush: Has it hand over what it holds; called before the tank itself is flushed or shut down.
        """
        self._sources.add(flush)

    def stats(self) -> TankStats:
        """Return the books of the three signals; `unaccounted` is 0 in each, at every moment."""
        stats = {signal: pipeline.stats() for signal, pipeline in self._pipelines.items()}
        pressure, disk = self._memory.monitor.current, self._disk
        return TankStats(
            spans=stats[Signal.SPANS],
            metrics=stats[Signal.METRICS],
            logs=stats[Signal.LOGS],
            pressure=pressure.level,
            scale=pressure.scale,
            spool_limit_bytes=0 if disk is None else disk.folder.limit_bytes,
            orphans_waiting=0 if disk is None else disk.folder.waiting,
            is_spool_down=disk is not None and disk.folder.is_down,
            is_spool_starved=disk is not None and disk.folder.is_starved,
        )

    def health(self) -> Health:
        """
        Say how the tank fares, and why: for readiness probes and status pages. Thread-safe; never raises, never waits.

        `Health.is_ready` is false only after shutdown: an outage of the collector is no reason to take an application
        out of service.
        """
        return self._health.judge(self.stats(), is_ended=self._is_closed)

    @property
    def outlets(self) -> Mapping[Signal, OutletConfig]:
        """Where each signal goes."""
        return self._config.outlets

    @property
    def _in_use(self) -> list[Signal]:
        """The signals that may have anything to send."""
        return list(Signal)

    def is_used(self, signal: Signal) -> bool:
        """Whether a signal has a door into OpenTelemetry, or has had items."""
        doors = {
            Signal.SPANS: self._span_processor,
            Signal.METRICS: self._metric_reader,
            Signal.LOGS: self._log_record_processor,
        }
        return doors[signal] is not None or self._pipelines[signal].has_had_items

    def measure(self, signal: Signal, record: Callable[[Attempt], None]) -> None:
        """Have `record` called with each attempt at delivery, on the delivery thread."""
        self._pipelines[signal].measure = record

    def report_to(self, meter_provider: Any) -> None:
        """
        Report this tank's own metrics (`docs/metrics.md`) through that meter provider, in place of the global one.

        Args:
            meter_provider: The application's own, where it is not the global one.
        """
        report(self, meter_provider)

    @property
    def is_shut_down(self) -> bool:
        """Whether it takes no more telemetry."""
        return self._is_closed

    def expect_kill(self) -> None:
        """Deliver or store what is held, and go on; called at a SIGTERM that does not end the process, where a SIGKILL is to follow."""
        for pipeline in self._pipelines.values():
            pipeline.store_from_now_on()
        self.force_flush()

    def force_flush(self, timeout: float = 5.0, *, until: Until = "delivered") -> bool:
        """
        Collect metrics, and deliver everything that was offered to this process before this call.

        What other processes have left on disk does not count; it is sent by and by.

        Args:
            timeout: Seconds after which to return, whatever the endpoint does.
            until: What to wait for. `delivered`: the receiver has it. `safe`: it is delivered or on disk, at the
                configured durability; where nothing can be stored, as `delivered`. Metrics, which by default are stored at
                shutdown only, are stored for `safe`, too.

        Returns:
            True only if everything was delivered or is safe on disk at the configured durability, whichever was waited
            for; `stats` tells the two apart.

        Raises:
            ConfigError: `until` is neither.
        """
        check_choice("until", until, ("delivered", "safe"))
        if self.is_entered_here() or is_own_thread():
            # A signal handler that interrupted us, or a log handler on a thread of ours: what it waits for could not happen.
            return False
        deadline = self._clock.monotonic() + max(0.0, timeout)
        if not self._is_threaded:
            self._memory.loop.step_here()
            if self._disk is not None and self._disk.is_free(timeout):
                self._keeper.step_here()
            self._teller.step_here()
        collected = self._sources.draw(timeout)
        if self._metric_reader is not None:
            left = deadline - self._clock.monotonic()
            collected = self._metric_reader.collect_within(left) and collected
        left = deadline - self._clock.monotonic()
        flushes = [(pipeline, pipeline.begin_flush(left, until)) for pipeline in self._pipelines.values()]
        # Each is ended, whatever became of the others.
        succeeded = [pipeline.end_flush(flush) for pipeline, flush in flushes]
        if not self._is_threaded:
            self._teller.step_here()
        return collected and all(succeeded)

    def shutdown(self, timeout: float | None = None) -> bool:
        """
        Refuse offers, deliver what there is, give up the rest, and say in one log line what became of everything.

        Args:
            timeout: Seconds for all signals together; default `shutdown_timeout`.

        Returns:
            True if nothing had to be given up and the last metrics were collected in time. A second call does nothing
            and returns what the first one did.
        """
        if self.is_entered_here() or is_own_thread():
            # See `force_flush`: end on another thread, as soon as the interrupted change is complete; without one, by the exit hook.
            threads.start_to_end(lambda: self.shutdown(timeout), "surgetank-shutdown")
            return False
        budget = self._config.shutdown_timeout if timeout is None else max(0.0, timeout)
        deadline = self._clock.monotonic() + budget
        if not self._is_closed and not self.is_ending_here():
            # Before the lock, which a source that is shut down meanwhile asks for.
            self._has_drawn_last = self._sources.draw(COLLECT_SHARE * budget)
        # Another thread's shutdown may have a later deadline, and one that we interrupted cannot go on before we return.
        if self.is_ending_here() or not self._shutdown_lock.acquire(timeout=min(budget, REST_MAX)):
            return False
        try:
            is_clean = self._shut(list(Signal), deadline) and self._has_drawn_last
            lifecycle.forget(self)
            self._report()
        finally:
            self._shutdown_lock.release()
            lifecycle.deliver_postponed()
        return is_clean

    def before_fork(self) -> None:
        """Come to a state that can be copied; called by the fork hook."""
        for pipeline in self._pipelines.values():
            pipeline.before_fork()
        if self._metric_reader is not None:
            self._metric_reader.before_fork()
        if self._disk is not None:
            self._disk.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on; called by the fork hook."""
        for pipeline in self._pipelines.values():
            pipeline.after_fork_in_parent()
        if self._disk is not None:
            self._disk.after_fork_in_parent()
        if self._metric_reader is not None:
            self._metric_reader.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Start anew with empty buffers and no sockets; called by the fork hook."""
        self._renew_locks()
        self._started_at = self._clock.now()
        for endpoint in self._endpoints.values():
            endpoint.forget()
        for pipeline in self._pipelines.values():
            pipeline.after_fork_in_child()
        self._keeper.reset()
        self._memory.loop.reset()
        self._teller.reset()
        self._is_telling = self._has_told_late = False
        self._presence.after_fork_in_child()
        self._health.forget()
        if self._disk is not None:
            self._disk.after_fork_in_child(is_closed=self._is_closed)
        if self._metric_reader is not None:
            self._metric_reader.after_fork_in_child()

    def is_entered_here(self) -> bool:
        """Whether the calling thread is in the middle of a change: true only in signal handlers and destructors."""
        return any(pipeline.is_entered_here() for pipeline in self._pipelines.values())

    def is_ending_here(self) -> bool:
        """Whether the calling thread is in the middle of a shutdown: true only in signal handlers and destructors."""
        return bool(self._shutdown_lock._is_owned())

    def _renew_locks(self) -> None:
        self._has_helpers = False
        self._doors_lock = threads.new_lock()
        self._shutdown_lock = threads.new_rlock()

    def _make_pipeline(
        self,
        codec: Codec,
        is_critical: Callable[[Any], bool] | None,
        make_sender: Callable[[OutletConfig, Clock], Sender],
    ) -> Pipeline:
        outlet = self._config.outlets[codec.signal]
        name = place(outlet.url)
        disk = self._disk
        return Pipeline(
            limits=self._config.limits[codec.signal],
            timing=self._config.timing,
            codec=codec,
            sender=make_sender(outlet, self._clock),
            endpoint=self._endpoints.setdefault(name, Endpoint(name, self._clock)),
            clock=self._clock,
            timeout=outlet.timeout,
            compression=outlet.compression,
            is_critical=None if codec.signal is Signal.METRICS else is_critical,
            context=suppressed,
            is_threaded=self._is_threaded,
            spool=None if disk is None else disk.spools[codec.signal],
            is_write_ahead=disk is None or disk.settings.is_write_ahead,
            dead_letters=None if disk is None else disk.dead_letters,
            on_stored=self._wake_helpers,
        )

    def _make_disk(self, given: SpoolConfig | None, filesystem: Filesystem | None) -> Disk | None:
        self._keeper = Loop("surgetank-spool", self._tend, nullcontext, is_threaded=self._is_threaded)
        environment = self._environment
        limits = self._config.limits.values()
        # What is only to be stored at the end goes to a folder that is there for others, or was named.
        may_store = any(each.persist != "none" for each in limits) and names_folder(given, environment)
        if not (may_store or any(each.is_stored for each in limits)):
            return None
        if is_homeless(given, environment):
            line = "there is no home folder for a spool and SURGETANK_SPOOL_DIR names none; telemetry is held in memory"
            say(_logger, logging.WARNING, line)
            return None
        if not is_key_usable(given, environment):
            return None
        settings = resolve_spool(given, environment, self._config.outlets.values())
        if filesystem is None and not HAS_LOCKS:
            _logger.warning(
                "there is no spool on this platform, which has no advisory locks; telemetry is held in memory"
            )
            return None
        return Disk(settings, filesystem or OsFilesystem(), self._clock)

    def _wake_helpers(self) -> None:
        """Start what runs beside the pipelines, when there is first something for it to do."""
        self._presence.wake()
        if self._has_helpers:
            self._memory.notice_growth()
            return
        self._has_helpers = True
        if self._disk is not None:
            self._keeper.wake()
        self._memory.start()

    def _tend(self) -> float:
        """Step what the disk needs from time to time; return the seconds until it needs it again."""
        assert self._disk is not None
        with own_work(suppressed):
            self._disk.adopt_orphans()
            has_stored = [pipeline.tend() for pipeline in self._pipelines.values()]
            if any(has_stored):
                # A process that only delivers what others left seals nothing, which would have it seen.
                self._presence.wake()
        return self._disk.period

    def _have_told(self) -> None:
        """Have our own thread tell of what was dropped, or of an outage; called on any thread, within a drop."""
        if self._teller.is_manned:
            if not self._is_telling:
                self._is_telling = True
                self._teller.wake()
        elif self._is_closed and not self._has_told_late:
            # The first of what is offered after the end; the exit hook tells the exact counts.
            self._has_told_late = True
            if not self._is_threaded:
                self._tell()
            else:
                threads.start_to_end(self._tell, "surgetank-teller")

    def _tell(self, *, is_final: bool = False) -> float:
        """Log what there is to be told of losses and outages; return the seconds until there may be more."""
        # Before the look: what is dropped after it is told of by another one.
        self._is_telling = False
        with own_work(suppressed):
            rests = [endpoint.tell(is_final=is_final) for endpoint in self._endpoints.values()]
            losses = self._health.losses
            books = {signal: pipeline.stats() for signal, pipeline in self._pipelines.items()}
            losses.tell(books, is_final=is_final)
        if losses.is_on:
            self._is_telling = True
            rests.append(LOOK_PERIOD)
        return min(rests)

    def tell_last(self) -> None:
        """Log exact counts of what was dropped after the shutdown; called by the exit hook."""
        self._tell(is_final=True)

    def _shut_door(self, signal: Signal) -> None:
        """Close one signal, as its provider asks; providers that close in a row share one deadline."""
        if self.is_entered_here() or is_own_thread():
            # See `shutdown`.
            threads.start_to_end(lambda: self._shut_door(signal), "surgetank-shutdown")
            return
        if self.is_ending_here():
            return
        with self._shutdown_lock:
            now = self._clock.monotonic()
            if now > self._shared_deadline + SAME_SHUTDOWN:
                self._shared_deadline = now + self._config.shutdown_timeout
            self._shut([signal], max(now, self._shared_deadline))
        lifecycle.deliver_postponed()

    def _shut(self, signals: list[Signal], deadline: float) -> bool:
        for signal in signals:
            self._pipelines[signal].store_from_now_on()
        has_collected = True
        if Signal.METRICS in signals and self._metric_reader is not None:
            left = max(0.0, deadline - self._clock.monotonic())
            has_collected = self._metric_reader.stop(COLLECT_SHARE * left)
        pipelines = [self._pipelines[signal] for signal in signals]
        begun: list[tuple[Pipeline, Flush]] = []
        try:
            # All begin before any is waited for: they deliver side by side.
            begun += [(pipeline, flush) for pipeline in pipelines if (flush := pipeline.begin_shutdown(deadline))]
            for pipeline, flush in begun:
                pipeline.deliver_last(flush)
            # They end side by side, too: a disk that hangs is waited for once.
            for pipeline, _ in begun:
                pipeline.stop()
            for pipeline, flush in begun:
                pipeline.end_shutdown(flush)
        except BaseException:
            # The application's signal handler raised out of the wait (Ctrl-C does). Nobody waits any more; no second
            # shutdown would do anything, so each is ended now: what can be stored, is.
            for pipeline, flush in begun:
                flush.fail()
                pipeline.end_shutdown(flush)
            raise
        finally:
            if self._is_closed:
                self._close_helpers()
        return has_collected and all(pipeline.has_ended_cleanly for pipeline in pipelines)

    @property
    def _is_closed(self) -> bool:
        return all(pipeline.is_shut_down for pipeline in self._pipelines.values())

    def _close_helpers(self) -> None:
        disk = self._disk
        self._memory.loop.stop()
        self._teller.stop()
        self._presence.stop()
        if disk is not None:
            # Where it hangs, the keeper lets go of the folder when it comes back, or the kernel does at the end.
            self._keeper.stop(disk.close)
            self._keeper.end(JOIN_TIMEOUT, disk.is_free)
        self._memory.loop.join(JOIN_TIMEOUT)
        self._teller.join(JOIN_TIMEOUT)
        self._presence.end(JOIN_TIMEOUT)

    def _describe(self) -> dict[str, Any]:
        """Return what other programs may see of this tank (`presence.py`)."""
        stats, memory, disk = self.stats(), self._memory.monitor.current.reading, self._disk
        spool = None if disk is None else {"path": disk.folder.path, "limit_bytes": stats.spool_limit_bytes}
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "command": command(),
            "service": service_name(self._environment),
            "started_at": self._started_at,
            "endpoints": {signal.value: place(outlet.url) for signal, outlet in self._config.outlets.items()},
            "signals": {signal.value: books.as_data() for signal, books in stats.by_signal().items()},
            "memory": {"used": memory.used, "limit": memory.limit, "source": memory.source},
            "pressure": stats.pressure,
            "scale": stats.scale,
            "spool": spool if spool is None else {**spool, "is_down": stats.is_spool_down},
            "health": self._health.judge(stats, is_ended=self._is_closed).as_data(),
        }

    def _report(self) -> None:
        """Log the law once, a clause for each signal that was used."""
        if self._has_reported:
            return
        self._has_reported = True
        self._tell(is_final=True)
        stats = {signal: pipeline.stats() for signal, pipeline in self._pipelines.items()}
        clauses = [_clause(signal, books) for signal, books in stats.items() if books.offered or books.recovered]
        lost = any(books.dropped or books.rejected for books in stats.values())
        if clauses:
            say(_logger, logging.WARNING if lost else logging.INFO, "shut down: %s", "; ".join(clauses))


def _check_parts(*, clock: object, filesystem: object, **functions: object) -> None:
    """Refuse what could not be called."""
    for name, value in functions.items():
        if value is not None and not callable(value):
            raise ConfigError(name, value, "a function")
    for name, value, methods in (("clock", clock, _CLOCK), ("filesystem", filesystem, _FILESYSTEM)):
        if value is not None and not all(callable(getattr(value, each, None)) for each in methods):
            raise ConfigError(name, value, f"an object with the methods {', '.join(methods)}")


def _clause(signal: Signal, books: SignalStats) -> str:
    dropped = ", ".join(f"{reason} {count}" for reason, count in sorted(books.dropped.items())) or "0"
    disk = f"recovered {books.recovered}, " if books.recovered else ""
    left = f"spooled {books.spooled}, " if books.spooled else ""
    return (
        f"{signal.value} offered {books.offered}, {disk}delivered {books.delivered}, "
        f"rejected {books.rejected}, dropped {dropped}, {left}unaccounted {books.unaccounted}"
    )
