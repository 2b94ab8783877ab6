"""The checksums of a run signed by `model-signing`, where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fgonnx import files
from fgonnx.errors import InputError, OptionError
from fgonnx.jobs.audit.formats import SIGNATURE, SUMS


def sign(run: str | Path, key: str | Path) -> Path:
    """Sign the checksums of a run with a private key of an elliptic curve, as a Sigstore bundle.

    Whoever has the public key checks them with ``model_signing verify key RUN/SHA256SUMS --signature
    RUN/SHA256SUMS.sig --public_key KEY``, and the files with ``sha256sum --check SHA256SUMS``.

    Parameters
    ----------
    run : path
        The run's folder, with its report.
    key : path
        The private key, PEM, without a password.

    Returns
    -------
    Path
        The signature.

    Raises
    ------
    OptionError
        model-signing is not installed, or the key cannot be used.
    InputError
        The run has no checksums yet.
    """
    made = signer(key)
    sums = Path(run) / SUMS
    if not sums.is_file():
        raise InputError(f"'{run}' has no {SUMS} to sign; fgonnx report writes it")
    with files.replacing(sums.with_name(SIGNATURE)) as temporary:
        made.sign(sums, temporary)
    return sums.with_name(SIGNATURE)


def signer(key: str | Path) -> Any:
    """Return what signs with a private key.

    Raises
    ------
    OptionError
        model-signing is not installed, or the key cannot be used.
    """
    try:
        from model_signing import signing
    except ImportError as error:
        raise OptionError(
            f"a signature needs model-signing, which is not installed whole ({error}): pip install model-signing "
            "pyopenssl"
        ) from error
    files.read(key, OptionError, "private key")
    try:
        return signing.Config().use_elliptic_key_signer(private_key=Path(key))
    except (OSError, ValueError, TypeError, AttributeError) as error:  # the last one for a key of RSA
        raise OptionError(
            f"'{key}' is no private key of an elliptic curve in PEM, without a password ({error})"
        ) from error
