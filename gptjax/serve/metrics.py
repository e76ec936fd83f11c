"""Figures of a server for Prometheus."""

from collections.abc import Callable

import jax

from gptjax import extras

COMPILED = '/jax/core/compile/backend_compile_duration'  # JAX's own event
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters and histograms, by prometheus-client."""

    def __init__(self) -> None:
        prometheus = extras.need('prometheus_client', 'serve')
        self._registry = registry = prometheus.CollectorRegistry()
        self._text = prometheus.generate_latest
        prometheus.ProcessCollector(registry=registry)
        how = {'registry': registry, 'buckets': SECONDS}
        self._first = prometheus.Histogram(
            'gptjax_time_to_first_token_seconds', 'From the request to its first token', **how
        )
        self._between = prometheus.Histogram(
            'gptjax_time_between_tokens_seconds', 'Between the tokens of a text', **how
        )
        self.tokens = prometheus.Counter('gptjax_tokens', 'Tokens generated', registry=registry)
        self._requests = prometheus.Counter(
            'gptjax_requests', 'Requests by status', ['status'], registry=registry
        )
        self._compilations = prometheus.Counter(
            'gptjax_compilations', 'Programs compiled by JAX', registry=registry
        )
        self._gauge = prometheus.Gauge
        jax.monitoring.register_event_duration_secs_listener(self._on_event)

    def _on_event(self, event: str, duration_secs: float, **_: object) -> None:
        del duration_secs
        if event == COMPILED:
            self._compilations.inc()

    def count(self, status: int) -> None:
        """Notes an answer."""
        self._requests.labels(str(status)).inc()

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A figure that is asked for when it is read."""
        self._gauge(f'gptjax_{name}', meaning, registry=self._registry).set_function(value)

    def piece(self, seconds: float, tokens: int, *, first: bool) -> None:
        """Notes the time that some tokens of a text took."""
        if first:
            self._first.observe(seconds)
        elif tokens:
            self._between.observe(seconds / tokens)

    def text(self) -> bytes:
        """All of them in Prometheus' format."""
        return self._text(self._registry)
