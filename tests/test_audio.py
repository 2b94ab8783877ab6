"""Recordings: what is read is what was written, and what does not fit a model is named before it is explained."""

import json
import struct
import wave

import numpy as np
import onnx
import pytest

from fgonnx.errors import InputError
from fgonnx.pictures.read import audio
from tests.cli_support import good, refused, written
from tests.support import draw
from tests.support import model as parsed

WAVE = (0.9 * np.sin(np.arange(400) / 7)).astype(np.float32)


def write(path, samples=WAVE, rate=16000, bits=16, channels=1):
    """Write PCM with the standard library."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(bits // 8)
        file.setframerate(rate)
        scaled = np.rint(np.asarray(samples, np.float64) * 2 ** (bits - 1)).astype(np.int64)
        scaled += 128 if bits == 8 else 0
        file.writeframes(b"".join(int(v).to_bytes(bits // 8, "little", signed=bits > 8) for v in scaled.reshape(-1)))
    return path


def chunks(path, kind, bits, raw, extra=b"", channels=1):
    """Write a .wav file chunk by chunk."""
    form = struct.pack("<HHIIHH", kind, channels, 8000, 0, channels * bits // 8, bits) + extra
    body = b"WAVE" + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    body += b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(raw)) + raw
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


class TestReading:
    @pytest.mark.parametrize("bits", [8, 16, 24, 32])
    def test_pcm(self, tmp_path, bits):
        found = audio.read(write(tmp_path / "a.wav", bits=bits))
        assert (found.rate, found.samples.shape, found.samples.dtype) == (16000, (1, 400), np.float32)
        np.testing.assert_allclose(found.samples[0], WAVE, atol=0.51 * 2.0 ** (1 - bits) + 1e-7)

    @pytest.mark.parametrize("width", [32, 64])
    def test_floating_point(self, tmp_path, width):
        raw = WAVE.astype(f"<f{width // 8}").tobytes()
        np.testing.assert_array_equal(audio.read(chunks(tmp_path / "a.wav", 3, width, raw)).samples[0], WAVE)

    def test_extensible(self, tmp_path):
        extra = struct.pack("<HHIH", 22, 16, 0, 1) + bytes(14)
        raw = np.array([0, 16384, -32768], "<i2").tobytes()
        found = audio.read(chunks(tmp_path / "a.wav", 0xFFFE, 16, raw, extra))
        np.testing.assert_array_equal(found.samples, [[0, 0.5, -1]])

    def test_channels(self, tmp_path):
        found = audio.read(write(tmp_path / "a.wav", np.stack([WAVE, -WAVE], 1), channels=2))
        np.testing.assert_allclose(found.samples, [WAVE, -WAVE], atol=1e-4)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"is not a \.wav file"),
            (b"OggS" + bytes(40), r"is not a \.wav file"),
            (b"RIFF" + bytes(4) + b"WAVE", "its format or its samples are missing"),
        ],
    )
    def test_of_anything_else_is_refused(self, tmp_path, content, message):
        (tmp_path / "a.wav").write_bytes(content)
        with pytest.raises(InputError, match=message):
            audio.read(tmp_path / "a.wav")

    def test_of_a_file_that_is_cut_off_is_refused(self, tmp_path):
        path = write(tmp_path / "a.wav")
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InputError, match="is cut off: it announces 800 bytes of samples and holds 700"):
            audio.read(path)

    def test_of_other_codes_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"format 6, 8 bits.*ffmpeg"):
            audio.read(chunks(tmp_path / "a.wav", 6, 8, b"abcd"))

    def test_of_silence_without_samples_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="holds no samples"):
            audio.read(chunks(tmp_path / "a.wav", 1, 16, b""))

    def test_of_nan_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="NaN or infinity"):
            audio.read(chunks(tmp_path / "a.wav", 3, 32, np.array([np.nan], "<f4").tobytes()))

    def test_of_nothing_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="does not exist"):
            audio.read(tmp_path / "none.wav")


class TestPreparing:
    STEREO = audio.Recording(np.stack([WAVE, -WAVE]), 16000, "a.wav")
    MONO = audio.Recording(WAVE[None], 16000, "a.wav")

    @pytest.mark.parametrize(
        ("dims", "shape"),
        [(("N", "T"), (400,)), (("N", 1, "T"), (1, 400)), ((1, 400, 1), (400, 1)), (("N", "C", 400), (1, 400))],
    )
    def test_brings_it_to_the_models_shape(self, dims, shape):
        x, notes = audio.prepare(self.MONO, dims, rate=16000)
        assert (x.shape, notes) == (shape, ())

    def test_takes_a_span_of_a_channel(self):
        x, _ = audio.prepare(self.STEREO, ("N", 100), rate=16000, channel=1, span=(50, 150))
        np.testing.assert_array_equal(x, -WAVE[50:150])

    def test_gives_both_channels_to_a_model_that_takes_two(self):
        assert audio.prepare(self.STEREO, ("N", 2, "T"), rate=16000)[0].shape == (2, 400)

    def test_notes_a_rate_that_is_taken_on_trust(self):
        _, notes = audio.prepare(self.MONO, ("N", "T"))
        assert notes[0].startswith("16000 Hz is taken to be the model's sample rate")

    @pytest.mark.parametrize(
        ("recording", "dims", "options", "message"),
        [
            (MONO, ("N", "T"), {"rate": 8000}, "has 16000 samples per second, the model takes 8000; resample it"),
            (STEREO, ("N", "T"), {}, r"has 2 channels, the model takes 1; choose one \(--channel 0\) or mix"),
            (MONO, ("N", 2, "T"), {}, "has 1 channels, the model takes 2"),
            (MONO, ("N", "T"), {"channel": 1}, "there is no channel 1"),
            (MONO, ("N", 300), {}, r"has 400 samples, the model takes 300; choose which \(span='0:300'\), slide"),
            (MONO, ("N", "T"), {"span": (300, 500)}, "has 400 samples; the span 300:500 is not in it"),
            (MONO, ("N", 1, 40, 40), {}, r"takes none: compute the spectrogram .* give them as \.npy"),
        ],
    )
    def test_refuses_what_does_not_fit(self, recording, dims, options, message):
        with pytest.raises(InputError, match=message):
            audio.prepare(recording, dims, **options)


@pytest.fixture
def source(tmp_path):
    """A network for sound of any length, saved; its rate is in its metadata."""
    proto = parsed(
        """(float[N,1,T] x) => (float[N,3] y) {
            a = Conv<kernel_shape=[9], strides=[4]>(x, w, b)
            r = Relu(a)
            p = GlobalAveragePool(r)
            y = Flatten(p)
        }""",
        weights=draw(w=(3, 1, 9), b=(3,)),
    )
    onnx.helper.set_model_props(proto, {"fgonnx.rate": "16000"})
    onnx.save(proto, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


class TestCommandLine:
    def test_explains_a_recording_over_time(self, source, tmp_path):
        write(tmp_path / "a.wav")
        good("explain", source, tmp_path / "a.wav", "-o", tmp_path / "out", "--span", "100:350")
        assert written(tmp_path / "out") == ["a.json", "a.npy", "a.png"]
        assert np.load(tmp_path / "out" / "a.npy").shape == (250,)
        record = json.loads((tmp_path / "out" / "a.json").read_text())
        assert (record["settings"]["span"], record["notes"]) == ([100, 350], [])

    def test_explains_a_folder_of_recordings(self, source, tmp_path):
        (tmp_path / "in").mkdir()
        for name in "ab":
            write(tmp_path / "in" / f"{name}.wav")
        good("explain", source, tmp_path / "in", "-o", tmp_path / "out")
        assert len(written(tmp_path / "out")) == 6

    def test_another_rate_is_refused_and_nothing_lost(self, source, tmp_path):
        write(tmp_path / "a.wav")
        write(tmp_path / "b.wav", rate=44100)
        message = refused("explain", source, tmp_path / "a.wav", tmp_path / "b.wav", "-o", tmp_path / "out")
        assert "has 44100 samples per second, the model takes 16000" in message
        assert written(tmp_path / "out") == ["a.json", "a.npy", "a.png"]

    @pytest.mark.parametrize("span", ["100", "a:b", "5:", "0.1:0.2"])
    def test_a_span_that_is_none_is_refused(self, source, tmp_path, span):
        message = refused("explain", source, write(tmp_path / "a.wav"), "-o", tmp_path / "out", "--span", span)
        assert "is not a part of a recording" in message

    def test_a_rate_in_the_metadata_that_is_none_is_refused(self, source, tmp_path):
        proto = onnx.load(source)
        onnx.helper.set_model_props(proto, {"fgonnx.rate": "fast"})
        onnx.save(proto, source)
        message = refused("explain", source, write(tmp_path / "a.wav"), "-o", tmp_path / "out")
        assert "'fgonnx.rate' is 'fast'" in message
