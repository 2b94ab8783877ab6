"""Audits from Python: what `fgonnx audit` and `fgonnx report` do (needs the extra ``audit``)."""

from __future__ import annotations

from fgonnx.jobs.audit.drift import against
from fgonnx.jobs.audit.export import export
from fgonnx.jobs.audit.job import audit, records
from fgonnx.jobs.audit.options import Auditing, Drift, Runner
from fgonnx.jobs.audit.report.build import report
from fgonnx.jobs.audit.signing import sign

__all__ = ["Auditing", "Drift", "Runner", "against", "audit", "export", "records", "report", "sign"]
