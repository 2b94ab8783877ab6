"""What operators see of a service: metrics for Prometheus, and a line of JSON for each request, without its content."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fgonnx.serve.job import EXPLAIN, Answer, Job

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128)
_RESIDUALS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_LONGEST = 300  # characters of an error in the log

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Watch:
    """Metrics and log of one service.

    Parameters
    ----------
    log : bool
        Whether requests are logged.
    stream : text file, optional
        Where to; stderr by default.
    """

    def __init__(self, log: bool = True, stream: TextIO | None = None) -> None:
        self._log, self._stream, self._lock = log, stream, threading.Lock()
        self.registry = CollectorRegistry()
        of_all: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "fgonnx_requests_total",
            "Requests answered, by status of HTTP (of gRPC, the status that means the same).",
            ("model", "verb", "protocol", "status"),
            **of_all,
        )
        self.active = Gauge("fgonnx_requests_active", "Requests that are read, wait or run.", **of_all)
        self.waiting = Gauge("fgonnx_queue_samples", "Samples that wait for a model.", ("model", "verb"), **of_all)
        self.stages = Histogram(
            "fgonnx_stage_seconds",
            "Time of a request by stage: read, wait, run, write.",
            ("model", "verb", "stage"),
            buckets=_SECONDS,
            **of_all,
        )
        self.together = Histogram(
            "fgonnx_batch_samples", "Samples run together.", ("model", "verb"), buckets=_SAMPLES, **of_all
        )
        self.residuals = Histogram(
            "fgonnx_relative_residual",
            "Residual of the certificate, relative to the score.",
            ("model",),
            buckets=_RESIDUALS,
            **of_all,
        )

    def page(self) -> bytes:
        """Return the metrics as Prometheus reads them."""
        return bytes(generate_latest(self.registry))

    def answered(self, about: Mapping[str, Any], job: Job | None, answer: Answer | None, error: str = "") -> None:
        """Count a request, and log it.

        Parameters
        ----------
        about : mapping
            "protocol", "verb" and "status"; "model" where there is one of that name.
        job : Job or None
            The request, as far as it was understood.
        answer : Answer or None
            Its answer.
        error : str
            What was said instead.
        """
        model, verb = str(about.get("model", "")), str(about["verb"])
        self.requests.labels(model, verb, about["protocol"], str(about["status"])).inc()
        line = dict(about)
        if job is not None:
            line |= {"version": job.served.version, "samples": job.count, "batch": job.batch}
            line["seconds"] = {stage: round(seconds, 6) for stage, seconds in job.seconds.items()}
            for stage, seconds in job.seconds.items():
                self.stages.labels(model, verb, stage).observe(seconds)
            if job.batch:
                self.together.labels(model, verb).observe(job.batch)
        if job is not None and job.verb == EXPLAIN and answer is not None:
            made = [one for one in answer.explained if one is not None]
            residuals = [one.relative for one in made if one.relative is not None]
            for value in residuals:
                self.residuals.labels(model).observe(value)
            line["explained"] = len(made)
            line["targets"] = [one.target["index"] if one.target else one.described for one in made]
            if residuals:
                line["residual"] = float(f"{max(residuals):.3g}")
        if error:
            line["error"] = error[:_LONGEST]
        self.tell("request", **line)

    def tell(self, event: str, **fields: Any) -> None:
        """Write a line of JSON."""
        if not self._log:
            return
        now = time.time()
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
        line = json.dumps({"time": clock, "event": event, **fields})
        with self._lock:
            stream = self._stream or sys.stderr
            stream.write(f"{line}\n")
            stream.flush()
