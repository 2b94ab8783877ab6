"""Log a run of `fgonnx audit` to MLflow: `python examples/mlflow_run.py RUN`; needs the package mlflow."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import mlflow

EVIDENCE = ("report.html", "report.json", "run.json", "sanity.json", "statement.intoto.json", "model-card.cdx.json")
SUMS = ("SHA256SUMS", "SHA256SUMS.sig")


def metrics(summary: dict) -> dict[str, float]:
    """Return the numbers of a report that runs are compared by; MLflow takes no colon in their names."""
    found = {"errors": summary["counts"]["errors"], "explained": summary["counts"]["explained"]}
    for row in summary["performance"]:
        if row["kind"] in ("all", "slice"):
            found |= {f"accuracy/{row['cohort']}{k}": row[v] for k, v in (("", "accuracy"), (".low", "low"))}
    if summary["calibration"] is not None:
        found["calibration error"] = summary["calibration"]["error"]
    if summary["certificates"] is not None:
        found["certificate/worst"] = summary["certificates"]["rounding"]["1.0"]
    for name, value in summary["cohorts"][0]["measures"].items():
        found[f"measure/{name}".replace(":", " ")] = value["mean"]
    return {name.replace("=", " "): float(value) for name, value in found.items()}


def log(run: Path, experiment: str = "audits") -> str:
    """Log a run, and return the id that MLflow gives it."""
    summary = json.loads((run / "report.json").read_text(encoding="utf-8"))
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=f"{Path(summary['model']['path']).name} {summary['run'][:12]}") as started:
        mlflow.set_tags({"audit": summary["run"], "model.sha256": summary["model"]["sha256"]})
        mlflow.set_tag("findings", "\n".join(summary["findings"]))
        options = summary["request"]["options"]
        mlflow.log_params({name: options[name] for name in ("method", "profile", "psi", "head")})
        mlflow.log_metrics(metrics(summary))
        for name in (*EVIDENCE, *SUMS):
            if (run / name).is_file():
                mlflow.log_artifact(str(run / name))
    return started.info.run_id


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the folder that fgonnx audit wrote")
    parser.add_argument("--experiment", default="audits")
    given = parser.parse_args()
    print(log(given.run, given.experiment))
