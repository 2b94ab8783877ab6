"""Read .wav recordings as numbers from -1 to 1, and check them against a model's input."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgonnx import files
from fgonnx.errors import InputError
from fgonnx.wording import parameter

RATE_KEY = "fgonnx.rate"
"""Key of a model's metadata that holds the sample rate it was made for, in Hz."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


@dataclass(frozen=True)
class Recording:
    """A recording read from a file.

    Attributes
    ----------
    samples : numpy array of float32, (channels, T)
        From -1 to 1.
    rate : int
        Samples per second.
    path : Path
        Where it was read from.
    """

    samples: npt.NDArray[np.float32]
    rate: int
    path: Path


def read(path: str | os.PathLike[str]) -> Recording:
    """Read a .wav file: 8, 16, 24 or 32 bits of PCM, or 32 or 64 bits of floating point.

    Raises
    ------
    InputError
        The file is missing, not a .wav file, truncated, empty, or in another encoding.
    """
    path = Path(path)
    data = files.read(path, InputError)
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise InputError(f"'{path}' is not a .wav file (RIFF/WAVE); convert it: ffmpeg -i IN OUT.wav")
    chunks = _chunks(data, path)
    if len(chunks.get(b"fmt ", b"")) < 16 or b"data" not in chunks:
        raise InputError(f"'{path}' is not a complete .wav file: its format or its samples are missing")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunks[b"fmt "][:16])
    if kind == _EXTENSIBLE and len(chunks[b"fmt "]) >= 26:
        (kind,) = struct.unpack("<H", chunks[b"fmt "][24:26])
    if kind not in (_PCM, _FLOAT) or bits not in ((8, 16, 24, 32) if kind == _PCM else (32, 64)) or not channels:
        raise InputError(
            f"'{path}' has an encoding that is not supported (format {kind}, {bits} bits); convert it to 16-bit PCM: "
            "ffmpeg -i IN -c:a pcm_s16le OUT.wav"
        )
    if not rate:
        raise InputError(f"'{path}' says that it has 0 samples per second; write it again with its rate")
    frame = channels * bits // 8
    raw = chunks[b"data"][: len(chunks[b"data"]) // frame * frame]
    if not raw:
        raise InputError(f"'{path}' holds no samples")
    samples = _decoded(raw, kind, bits)
    if not np.isfinite(samples).all():
        raise InputError(f"'{path}' holds NaN or infinity: write it again")
    return Recording(np.ascontiguousarray(samples.reshape(-1, channels).T, dtype=np.float32), rate, path)


def _chunks(data: bytes, path: Path) -> dict[bytes, bytes]:
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        if at + 8 + size > len(data) and name == b"data":
            raise InputError(
                f"'{path}' is cut off: it announces {size} bytes of samples and holds {len(data) - at - 8}; "
                "copy it again"
            )
        chunks.setdefault(name, data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2  # chunks begin at even offsets
    return chunks


def _decoded(raw: bytes, kind: int, bits: int) -> npt.NDArray[np.float64]:
    if kind == _FLOAT:
        return np.frombuffer(raw, f"<f{bits // 8}").astype(np.float64)
    if bits == 8:  # the only width without a sign
        return (np.frombuffer(raw, np.uint8).astype(np.float64) - 128) / 128
    if bits == 24:
        bytes_ = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        wide = np.concatenate([np.zeros((len(bytes_), 1), np.uint8), bytes_], axis=1)
        return np.frombuffer(wide.tobytes(), "<i4").astype(np.float64) / 2**31
    return np.frombuffer(raw, f"<i{bits // 8}").astype(np.float64) / 2 ** (bits - 1)


def prepare(
    recording: Recording,
    dims: Sequence[Any],
    *,
    rate: float | None = None,
    channel: int | None = None,
    span: tuple[int, int] | None = None,
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Bring a recording to one sample of a model's input: (T,), (channels, T) or (T, channels).

    Parameters
    ----------
    recording : Recording
        The recording.
    dims : sequence
        Sizes of the input with the batch axis; anything but an int is free.
    rate : float, optional
        Sample rate of the model, in Hz.
    channel : int, optional
        Index of the channel to use.
    span : (int, int), optional
        First sample, and the end (exclusive).

    Returns
    -------
    x : numpy array of float32
        Without the batch axis.
    notes : tuple of str
        Assumptions that were made.

    Raises
    ------
    InputError
        Rate, channels or length do not match the model, or it does not take sound.
    """
    samples, notes = chosen(recording, dims, rate=rate, channel=channel, span=span)
    where, last = f"'{recording.path}'", _channels_last(dims)
    length = dims[-1] if len(dims) == 2 or not last else dims[1]
    if isinstance(length, int) and samples.shape[1] != length:
        raise InputError(
            f"{where} has {samples.shape[1]} samples, the model takes {length}; choose which "
            f"({parameter('span', f'0:{length}')}), slide over all of them ({parameter('slide', length)}), or lengthen "
            "the recording with silence"
        )
    x = samples[0] if len(dims) == 2 else samples.T if last else samples
    return np.ascontiguousarray(x), notes


def _channels_last(dims: Sequence[Any]) -> bool:
    return len(dims) == 3 and dims[2] == 1 and dims[1] != 1


def chosen(
    recording: Recording,
    dims: Sequence[Any],
    *,
    rate: float | None = None,
    channel: int | None = None,
    span: tuple[int, int] | None = None,
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Return the channels and the part of a recording that a model takes, (channels, T), and notes.

    Takes what `prepare` takes, and raises what it raises, but for the length.
    """
    where, samples = f"'{recording.path}'", recording.samples
    if len(dims) not in (2, 3):
        shape = ", ".join(str(d if isinstance(d, int) else "?") for d in dims)
        raise InputError(
            f"{where} is sound, and the model's input ({shape}) takes none: compute the spectrogram or the features it "
            "was made for, and give them as .npy"
        )
    notes: tuple[str, ...] = ()
    if rate is None:
        notes = (
            f"{recording.rate} Hz is taken to be the model's sample rate: neither --rate nor its metadata ({RATE_KEY}) "
            "tells",
        )
    elif rate != recording.rate:
        whole = float(rate).is_integer()
        raise InputError(
            f"{where} has {recording.rate} samples per second, the model takes {rate}; "
            + (f"resample it: ffmpeg -i IN.wav -ar {rate} OUT.wav" if whole else "no .wav file has that: give a table")
        )
    last = _channels_last(dims)
    wanted = 1 if len(dims) == 2 else dims[2 if last else 1]
    if channel is not None:
        if not 0 <= channel < len(samples):
            raise InputError(f"{where} has {len(samples)} channel(s), counted from 0; there is no channel {channel}")
        samples = samples[channel : channel + 1]
    if isinstance(wanted, int) and len(samples) != wanted:
        raise InputError(
            f"{where} has {len(samples)} channels, the model takes {wanted}; choose one (--channel 0) or mix them: "
            f"ffmpeg -i IN.wav -ac {wanted} OUT.wav"
        )
    if span is not None:
        if not 0 <= span[0] < span[1] <= samples.shape[1]:
            raise InputError(f"{where} has {samples.shape[1]} samples; the span {span[0]}:{span[1]} is not in it")
        samples = samples[:, slice(*span)]
    return samples, notes
