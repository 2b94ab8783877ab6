"""`fgonnx report`: the report of an audit again, from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgonnx.cli.audit import check_extra, finish
from fgonnx.cli.options import Group, takes
from fgonnx.jobs.audit.options import Drift, Handing


@takes(drift=Group(Drift), handing=Group(Handing))
def command(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that fgonnx audit wrote.")],
    *,
    drift: Drift,
    handing: Handing,
) -> None:
    """Write the report of an audit again from its records; nothing is run.

    **Examples**

    - `fgonnx report run`
    - `fgonnx report run --against earlier --min-maps 0.9` : compared with another run of the same pictures
    - `fgonnx report run --export fiftyone,virelay --sign key.pem` : also for other tools, and signed

    A run of which shards are missing is reported on as far as it is, and the report says so. Exit code: 0; 1 where rows
    have no result, where contributions do not sum to the score, or a limit of --against does not
    hold; 2 where the folder holds no audit, or files that are not those of its plan or of its checksums.
    """
    check_extra("report")
    from fgonnx.jobs.audit.export import check
    from fgonnx.jobs.audit.signing import signer

    check(folder, handing)
    if handing.sign is not None:
        signer(handing.sign)
    finish(folder, drift, handing)
