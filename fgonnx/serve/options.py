"""Options of `fgonnx serve`: where it listens, and what it takes on."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from fgonnx.fields import check_fields, check_idle, documented, option
from fgonnx.jobs.audit import condition
from fgonnx.jobs.waiting import waiting

CONDITIONS = ("probability", "score", "margin", "predicted")
"""What a condition on a prediction can name; `predicted` is a label, or an index where there are none."""

_WHERE, _LIMITS = "Where it listens", "What it takes on"
_MOST_PORT = 65_535


def _idle_grpc_port(s: Serving) -> str:
    return "" if s.grpc else "gRPC is not served"


@documented
@dataclass(frozen=True, kw_only=True)
class Serving:
    """Where a service listens, and what it takes on."""

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for all of them.", panel=_WHERE, metavar="ADDRESS")
    port: int = option(8080, "Port of HTTP; 0 for any free one.", panel=_WHERE, least=0, most=_MOST_PORT)
    grpc_port: int = option(
        8081, "Port of gRPC; 0 for any free one.", panel=_WHERE, least=0, most=_MOST_PORT, idle=_idle_grpc_port
    )
    grpc: bool = option(
        True,
        "Serve HTTP alone.",
        panel=_WHERE,
        flag="--no-grpc",
        switch=True,
        parse=operator.not_,
        python="In Python, whether gRPC is served.",
    )
    reload: float = option(
        5.0,
        "Seconds between looks for new version folders; 0 for none.",
        panel=_WHERE,
        metavar="SECONDS",
        least=0,
        most=86_400,
    )
    log: bool = option(
        True,
        "Write no line for each request.",
        panel=_WHERE,
        flag="--no-log",
        switch=True,
        parse=operator.not_,
        python="In Python, whether requests are logged.",
    )
    explain_if: str | None = option(
        None,
        "Explain only predictions for which this holds, such as 'probability < 0.8'; requests may say it themselves. "
        f"Names: {', '.join(CONDITIONS)}.",
        metavar="CONDITION",
    )
    max_body: int = option(16, "Megabytes of a request.", panel=_LIMITS, metavar="MB", least=1, most=1024)
    max_pixels: int = option(25_000_000, "Pixels of a picture, before it is decoded.", panel=_LIMITS, least=1)
    max_samples: int = option(32, "Samples in one request.", panel=_LIMITS, least=1, most=65_536)
    max_requests: int = option(
        64, "Requests at once; others are answered 503, or RESOURCE_EXHAUSTED.", panel=_LIMITS, least=1, most=65_536
    )
    max_queue: int = option(
        128,
        "Samples that wait for a model, predictions and explanations each; others are answered 429.",
        panel=_LIMITS,
        least=1,
        most=1 << 20,
    )
    max_wait: float = waiting(_LIMITS, 10_000, ", where the batch size is above 1")
    timeout: float = option(
        30.0, "Seconds until a request is answered 504.", panel=_LIMITS, metavar="SECONDS", above=0, most=86_400
    )
    grace: float = option(
        10.0,
        "Seconds that requests have to end when the service is stopped.",
        panel=_LIMITS,
        metavar="SECONDS",
        least=0,
        most=3600,
    )
    workers: int = option(
        1, "Explanations of a model that are computed side by side.", panel=_LIMITS, least=1, most=256
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_idle(self)
        if self.explain_if is not None:
            condition.parse(self.explain_if, names=CONDITIONS)
