"""Prometheus metrics: sums from the engine's step events, gauges from its stats, histograms per request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.spec.events import StepEvent

if TYPE_CHECKING:
    from headrace.engine.answer import Step
    from headrace.engine.surface import Surface

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_SUMS = {
    "prefill_tokens": "Prompt tokens computed.",
    "decode_tokens": "Tokens computed by decoding rows.",
    "sampled_tokens": "Tokens drawn.",
    "cached_tokens": "Prompt tokens taken from the prefix cache.",
    "admitted": "Sequences admitted to run.",
    "finished": "Runs finished.",
    "preempted": "Runs preempted because pages ran out.",
}
_GAUGES = {
    "running": "Sequences that run now.",
    "waiting": "Requests that wait now.",
    "pages_used": "KV pages held by sequences.",
    "pages_cached": "KV pages kept for reuse only.",
    "pages_total": "KV pages in all.",
    "open_sequences": "Open sequence handles.",
}
_PHASES = ("schedule", "run", "sample")


class EngineCollector(Collector):
    """Adds up step events as they happen (in the engine's thread: a few integer additions a step)."""

    def __init__(self, engine: Surface) -> None:
        self._engine = engine
        self._steps = 0
        self._sums = dict.fromkeys(_SUMS, 0)
        self._seconds = dict.fromkeys(_PHASES, 0.0)
        self.close = engine.events.listen(self._add)

    def _add(self, event: StepEvent) -> None:
        self._steps += 1
        sums, seconds = self._sums, self._seconds
        for name in sums:
            sums[name] += getattr(event, name)
        seconds["schedule"] += event.schedule_seconds
        seconds["run"] += event.run_seconds
        seconds["sample"] += event.sample_seconds

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily("headrace_steps", "Engine steps.", value=self._steps)
        for name, text in _SUMS.items():
            yield CounterMetricFamily(f"headrace_{name}", text, value=self._sums[name])
        seconds = CounterMetricFamily("headrace_step_seconds", "Seconds spent in engine steps.", labels=["phase"])
        for phase, value in self._seconds.items():
            seconds.add_metric([phase], value)
        yield seconds
        stats = self._engine.stats()
        for name, text in _GAUGES.items():
            if name in stats:
                yield GaugeMetricFamily(f"headrace_{name}", text, value=stats[name])
        yield GaugeMetricFamily("headrace_healthy", "1 while the engine runs.", value=self._engine.healthy() is None)


class Metrics:
    """One registry an app; nothing global."""

    def __init__(self, engine: Surface) -> None:
        self._registry = CollectorRegistry()
        self._collector = EngineCollector(engine)
        self._registry.register(self._collector)
        self._requests = Counter(
            "headrace_requests", "Requests answered, by route and status.", ["route", "status"], registry=self._registry
        )
        self._queued = self._histogram("headrace_queue_seconds", "Wait for admission.", _SECONDS)
        self._first = self._histogram("headrace_first_token_seconds", "Time to the first token.", _SECONDS)
        self._token = self._histogram("headrace_token_seconds", "Time per token after the first.", _TOKEN_SECONDS)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self._registry)

    def answered(self, route: str, status: int) -> None:
        self._requests.labels(route, str(status)).inc()

    def finished(self, step: Step) -> None:
        """Records the times of one finished choice."""
        self._queued.observe(step.queue_seconds)
        if count := len(step.token_ids):
            self._first.observe(step.first_token_seconds)
            if count > 1:
                self._token.observe(max(0.0, step.seconds - step.first_token_seconds) / (count - 1))

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def close(self) -> None:
        self._collector.close()
