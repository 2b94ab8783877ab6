"""Explanations in Python sessions: whatever holds a sample goes in, pictures, tables and files come out."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import wave
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import fgonnx
from fgonnx.errors import InputError, OptionError, PreprocessingError
from tests.cli_support import good
from tests.support import model

ROOT = Path(__file__).parents[1]
SHAPES = ROOT / "examples" / "shapes.onnx"
IMAGES = ROOT / "examples" / "images"
STAR, RING = IMAGES / "star.png", IMAGES / "ring.png"

BARE = model("(float[N,3,8,8] x) => (float[N,3] y) { p = GlobalAveragePool(x)  y = Flatten(p) }")
"""A model of pictures that does not say how they are prepared."""


def rgb(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[:, :, ::-1]


@pytest.fixture(scope="module")
def explainer():
    return fgonnx.Explainer(SHAPES)


@pytest.fixture(scope="module")
def both():
    return fgonnx.explain(SHAPES, [STAR, RING])


@pytest.fixture(scope="module")
def prepared(explainer):
    """The star as the model takes it, (3, 64, 64)."""
    return explainer(STAR).origin.samples[0].x


ONE = {
    "path": lambda x: STAR,
    "text": lambda x: str(STAR),
    "pattern": lambda x: str(IMAGES / "st?r.png"),
    "list of one path": lambda x: [STAR],
    "PIL": lambda x: Image.fromarray(rgb(STAR)),
    "PIL with alpha": lambda x: Image.fromarray(rgb(STAR)).convert("RGBA"),
    "pixels": lambda x: rgb(STAR),
    "pixels with a batch": lambda x: rgb(STAR)[None],
    "torch pixels": lambda x: torch.from_numpy(rgb(STAR).copy()),
    "column of paths": lambda x: pd.Series([str(STAR)]),
    "generator": lambda x: (p for p in [STAR]),
    "array": lambda x: x[None],
    "array without a batch": lambda x: x,
    "float64": lambda x: x.astype(np.float64),
    "nested lists": lambda x: x[None].tolist(),
    "torch": lambda x: torch.from_numpy(x[None]),
    "torch with a gradient": lambda x: torch.from_numpy(x).requires_grad_(),
    "by name": lambda x: {"image": torch.from_numpy(x[None])},
    "list of arrays": lambda x: [x],
}


LOOP: list[object] = []
LOOP.append(LOOP)

WRONG = {
    "itself": (LOOP, InputError, "holds itself"),
    "mappings in a list": ([{"image": STAR}], InputError, "one mapping of arrays"),
    "tensor without values": (torch.zeros((1, 3, 64, 64), device="meta"), InputError, "cannot be read as an array"),
    "nothing": ([], InputError, "nothing to explain"),
    "missing": ("nowhere.png", InputError, "does not exist"),
    "number": (3, InputError, "int is no sample"),
    "shape": (np.zeros((3, 5, 5), np.float32), InputError, "must have the shape"),
    "text among arrays": ([np.zeros((3, 64, 64), np.float32), "nowhere.png"], InputError, "does not exist"),
    "bytes": (STAR.read_bytes(), InputError, r"give PIL.Image.open\(io.BytesIO\(data\)\)"),
    "an open file": (io.BytesIO(STAR.read_bytes()), InputError, "bytes and open files are no sample"),
    "an address": ("https://example.com/a.png", InputError, "'https://example.com/a.png' is an address"),
    "channels first": (np.zeros((3, 64, 64), np.uint8), InputError, r"channels last: give array.transpose\(1, 2, 0\)"),
    "channels last": (np.zeros((64, 64, 3), np.float32), InputError, r"give array.transpose\(2, 0, 1\)"),
    "a batch, channels last": (np.zeros((2, 64, 64, 3), np.float32), InputError, r"give array.transpose\(0, 3, 1, 2\)"),
}


class TestOneSample:
    """The same explanation, in whatever the sample is."""

    @pytest.mark.parametrize("kind", ONE)
    def test_is_explained_alike(self, explainer, prepared, kind):
        name = explainer.loaded.input().name
        x = ONE[kind](prepared)
        x = {name: x["image"]} if isinstance(x, dict) else x
        np.testing.assert_allclose(explainer(x).saliency, explainer(STAR).saliency, rtol=1e-5, atol=1e-5)

    def test_without_a_batch_is_noted(self, explainer, prepared):
        assert explainer(prepared).notes[-1] == "one sample of shape (3, 64, 64): taken as a batch of one"

    def test_turned_photo_is_upright(self, explainer, tmp_path):
        image = Image.fromarray(rgb(STAR))
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned by a quarter
        image.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
        with Image.open(tmp_path / "turned.png") as image:
            turned = explainer(image)
        np.testing.assert_allclose(turned.saliency, explainer(STAR).saliency, rtol=1e-5, atol=1e-5)


class TestSeveral:
    def test_folder_holds_its_pictures_in_order(self, explainer):
        names = [sample.source.name for sample in explainer(IMAGES).origin.samples]
        assert names == sorted(p.stem for p in IMAGES.glob("*.png"))

    def test_kinds_may_be_mixed(self, explainer, prepared):
        assert len(explainer([STAR, Image.fromarray(rgb(RING)), rgb(STAR), prepared])) == 4

    def test_targets_are_one_each(self, explainer):
        assert explainer([STAR, RING], ["ring", "star"]).described == ("5 'ring'", "3 'star'")

    @pytest.mark.parametrize(
        "targets", [np.array([5, 3]), torch.tensor([5, 3]), pd.Series([5, 3])], ids=lambda t: str(type(t))
    )
    def test_targets_are_numbers_of_any_library(self, explainer, targets):
        assert explainer([STAR, RING], targets).described == ("5 'ring'", "3 'star'")

    @pytest.mark.parametrize("dtype", [str, object])
    def test_arrays_of_paths_are_paths(self, explainer, dtype):
        assert len(explainer(np.array([str(STAR), str(RING)], dtype))) == 2

    def test_stream_takes_what_a_call_takes(self):
        small = fgonnx.Explainer(SHAPES, batch_size=2)
        assert [len(e) for e in small.stream([STAR, Image.fromarray(rgb(RING)), rgb(STAR)])] == [2, 1]

    def test_stream_knows_its_files(self, explainer):
        (e,) = explainer.stream([STAR, RING])
        assert [s.source.path for s in e.origin.samples] == [STAR, RING]


class TestRefused:
    @pytest.mark.parametrize("kind", WRONG)
    def test_with_its_reason(self, explainer, kind):
        x, error, said = WRONG[kind]
        with pytest.raises(error, match=said):
            explainer(x)

    @pytest.mark.parametrize("x", [STAR, rgb(STAR), Image.fromarray(rgb(STAR))], ids=["path", "pixels", "PIL"])
    def test_unknown_preprocessing_says_what_to_write(self, x):
        with pytest.raises(PreprocessingError, match="preprocess='imagenet'"):
            fgonnx.explain(BARE, x)

    def test_given_preprocessing_is_taken(self):
        assert fgonnx.explain(BARE, STAR, preprocess="scale=1/255,resize=stretch,size=8").saliency.shape == (1, 8, 8)

    def test_preprocessing_may_be_an_object(self):
        how = fgonnx.Preprocessing(scale=1 / 255, resize="stretch", size=(8, 8))
        assert fgonnx.explain(BARE, STAR, preprocess=how).saliency.shape == (1, 8, 8)

    def test_arrays_need_no_preprocessing(self):
        assert len(fgonnx.explain(BARE, np.zeros((2, 3, 8, 8), np.float32))) == 2

    def test_sizes_of_one_call_agree(self):
        free = model("(float[N,3,H,W] x) => (float[N,3] y) { p = GlobalAveragePool(x)  y = Flatten(p) }")
        with pytest.raises(InputError, match="samples of one call have one size"):
            fgonnx.explain(free, [np.ones((3, 4, 4), np.float32), np.ones((3, 5, 5), np.float32)])


class TestExplanation:
    def test_is_one_line(self, both):
        assert repr(both) == "Explanation of 2 samples by fullgrad: 'star' 3.876; 'ring' 3.951"

    def test_of_one_sample(self, both):
        np.testing.assert_array_equal(both[1].saliency, both.saliency[1:])
        assert both[1].to_dict()["target"]["label"] == "ring"

    def test_from_the_end(self, both):
        assert both[-1].described == both[1].described

    def test_slices(self, both):
        assert both[:].described == both.described

    def test_every_array_has_the_rows_of_its_samples(self, both):
        one = both[0]
        assert {
            len(a) for a in (one.score, one.target, one.contributions, one.completeness, *one.outputs.values())
        } == {1}

    def test_runs_over_samples(self, both):
        assert [e.described[0] for e in both] == list(both.described)

    @pytest.mark.parametrize("index", [2, -3, slice(5, 9)])
    def test_samples_that_there_are_not(self, both, index):
        with pytest.raises(IndexError):
            both[index]

    @pytest.mark.parametrize("show", ["overlay", "picture", "plot", "to_dict"])
    def test_samples_that_there_are_not_are_not_shown(self, both, show):
        with pytest.raises(IndexError, match="there are 2 samples, 0 to 1; there is no sample 7"):
            getattr(both, show)(7)

    @pytest.mark.parametrize("again", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))], ids=["copy", "pickle"])
    def test_copies_and_pickles(self, both, again):
        assert repr(again(both)) == repr(both)

    def test_overlay_has_the_size_of_the_photo(self, both):
        assert both.overlay(0).size == rgb(STAR).shape[1::-1]

    def test_table_sums_to_the_score(self, both):
        table = both.to_dataframe()
        sums = table[[s.name for s in both.sites]].sum(axis=1)
        np.testing.assert_allclose(sums, table["score"], rtol=1e-5)

    def test_plot_has_three_axes_a_sample(self, both):
        assert len([a for a in both.plot().axes if a.get_label() != "<colorbar>"]) == 6

    def test_signed_scale_is_centred(self):
        figure = fgonnx.explain(SHAPES, STAR, psi="signed").plot()
        (low, high) = figure.axes[1].images[0].get_clim()
        assert low == -high < 0

    def test_contrast_is_named(self):
        assert "rather than" in repr(fgonnx.explain(SHAPES, STAR, contrast="next"))

    def test_kinds_of_pictures(self, both):
        with pytest.raises(OptionError, match="panel, overlay, heat"):
            both.picture(kind="photo")


class TestRecordsAreOfTheCall:
    """What becomes of files and arrays after a call is not the explanation's."""

    def test_of_a_file_that_is_overwritten(self, explainer, tmp_path):
        path = tmp_path / "x.png"
        path.write_bytes(STAR.read_bytes())
        e = explainer(path)
        path.write_bytes(RING.read_bytes())
        assert e.to_dict()["input"] == {**explainer(STAR).to_dict()["input"], "path": str(path)}

    def test_of_a_file_that_is_gone(self, explainer, tmp_path):
        path = tmp_path / "x.png"
        path.write_bytes(STAR.read_bytes())
        e = explainer(path)
        path.unlink()
        assert e.to_dict()["input"]["path"] == str(path)

    def test_of_an_image_that_was_painted_over(self, explainer):
        with Image.open(STAR) as image:
            image.paste((0, 0, 0), (0, 0, 256, 256))
            record = explainer(image).to_dict()
        assert (record["input"]["path"], record["command"]) == (None, [])

    def test_of_an_array_beside_a_file_of_its_name(self, explainer, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "array").write_text("another")
        assert explainer(np.zeros((1, 3, 64, 64), np.float32)).to_dict()["input"]["path"] is None

    @pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 64, 64)])
    def test_of_an_array_that_is_used_again(self, explainer, shape):
        x = np.ones(shape, np.float32)
        e, same = explainer(x), explainer(np.ones(shape, np.float32))
        x[:] = 0
        assert e.to_dict()["input"] == same.to_dict()["input"]

    def test_that_are_changed_stay(self, both):
        both.to_dict()["target"]["label"] = "another"
        assert both.to_dict()["target"]["label"] == "star"

    def test_of_a_drawing_method_have_a_command_where_it_draws_the_same(self, tmp_path):
        several = fgonnx.explain(SHAPES, [STAR, RING], method="smoothgrad", samples=2).save(tmp_path / "both")
        (*_, one) = fgonnx.explain(SHAPES, STAR, method="smoothgrad", samples=2).save(tmp_path / "one")
        assert [bool(json.loads(p.read_text())["command"]) for p in (one, several[2])] == [True, False]

    def test_name_numbers_of_numpy_as_numbers(self, explainer):
        targets = [explainer(STAR, target).to_dict()["settings"]["target"] for target in (np.int64(3), 3)]
        assert targets[0] == targets[1]


class TestWrittenFiles:
    @pytest.mark.parametrize("options", [{}, {"method": "grad-cam"}, {"form": "portable"}, {"psi": "signed"}], ids=str)
    def test_are_explained(self, options):
        e = fgonnx.explain(fgonnx.rewrite(SHAPES, **options), STAR)
        np.testing.assert_allclose(e.saliency, fgonnx.explain(SHAPES, STAR, **options).saliency, rtol=1e-3, atol=1e-4)


def test_outputs_of_one_of_several_are_its_own():
    chw = model(
        "(float[3,4,4] x) => (float[1,3] y) { u = Unsqueeze(x, zero) p = GlobalAveragePool(u) y = Flatten(p) }",
        weights={"zero": np.array([0], np.int64)},
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    e = fgonnx.explain(chw, x)
    np.testing.assert_allclose(e[1].outputs["y"].ravel(), x[1].mean(axis=(1, 2)), rtol=1e-5)


class Images(HTMLParser):
    """The attributes of every image of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.found.append(dict(attrs))


class TestNotebook:
    def test_png_is_the_panel(self, both):
        pixels = cv2.imdecode(np.frombuffer(both[0]._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(pixels[:, :, ::-1], both[0].picture())

    def test_html_has_an_image_a_sample_with_words(self, both):
        images = Images(both._repr_html_()).found
        assert ["explanation of star" in str(i["alt"]) for i in images] == [True, False]

    def test_many_samples_are_shown_in_part(self, explainer):
        many = explainer([STAR] * 14)
        assert len(Images(many._repr_html_()).found) == 12

    def test_text_of_files_is_escaped(self, explainer, tmp_path):
        path = tmp_path / "<b>&.png"
        path.write_bytes(STAR.read_bytes())
        assert "<b>" not in explainer(path)._repr_html_()


class TestFiles:
    @pytest.mark.parametrize("suffix", ["png", "npy", "json"])
    def test_are_those_of_the_command(self, tmp_path, monkeypatch, suffix):
        monkeypatch.chdir(ROOT)
        theirs, ours = tmp_path / "a" / "out", tmp_path / "b" / "out"
        good("explain", "examples/shapes.onnx", "examples/images/star.png", "-o", theirs, "--psi", "signed")
        fgonnx.explain("examples/shapes.onnx", "examples/images/star.png", psi="signed", cache=True).save(ours)
        a, b = ((folder / f"star.{suffix}").read_bytes().replace(bytes(folder), b"out") for folder in (theirs, ours))
        time = re.compile(rb'"time": "[^"]*"')
        assert time.sub(b"", a) == time.sub(b"", b)

    def test_single_files(self, both, tmp_path):
        for suffix in ("png", "npy", "json"):
            both[0].save(tmp_path / f"map.{suffix}")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["map.json", "map.npy", "map.png"]

    def test_a_picture_of_another_format_is_no_folder(self, both, tmp_path):
        with pytest.raises(InputError, match=r"pictures are written as \.png"):
            both[0].save(tmp_path / "map.jpg")
        assert list(tmp_path.iterdir()) == []

    def test_several_do_not_go_into_one(self, both, tmp_path):
        with pytest.raises(InputError, match="2 samples do not go into one file"):
            both.save(tmp_path / "map.png")

    def test_arrays_have_names_of_their_own(self, explainer, tmp_path):
        explainer(np.zeros((2, 3, 64, 64), np.float32)).save(tmp_path)
        assert sorted(p.stem for p in tmp_path.glob("*.json")) == ["array-0000", "array-0001"]

    def test_files_of_one_name_have_names_of_their_own(self, explainer, tmp_path):
        paths = [tmp_path / "p" / "a.png", tmp_path / "q" / "a.png", tmp_path / "a-0001.png"]
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(STAR.read_bytes())
        assert len(set(explainer([*paths, paths[0]]).save(tmp_path / "out"))) == 12

    def test_record_says_what_was_asked(self, explainer):
        assert explainer(STAR, "ring").to_dict()["settings"]["target"] == "ring"

    def test_record_is_json(self, both):
        assert json.loads(json.dumps(both.to_dict(1)))["input"]["path"] == str(RING)


@pytest.mark.parametrize("given", [lambda x: x, lambda x: [x[0]], lambda x: {"image": x}], ids=["one", "list", "named"])
def test_a_tensor_without_a_numpy_type_is_told_how_to_get_one(given):
    with pytest.raises(InputError, match=r"of bfloat16 .*with \.float\(\)"):
        fgonnx.explain(SHAPES, given(torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16)))


class TestSound:
    def test_recording_is_read(self, tmp_path):
        with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes((np.sin(np.arange(64)) * 9000).astype("<i2").tobytes())
        sound = model("(float[N,64] x) => (float[N,64] y) { y = Tanh(x) }")
        e = fgonnx.explain(sound, tmp_path / "tone.wav", rate=8000)
        assert e.saliency.shape == (1, 64)


class TestAWholeTableForAModelOfPictures:
    PATHS = tuple(map(str, sorted((ROOT / "examples" / "images").glob("*.png"))[:2]))

    def test_its_one_column_is_taken(self):
        given = fgonnx.explain(SHAPES, pd.DataFrame({"file": self.PATHS}))
        np.testing.assert_array_equal(given.score, fgonnx.explain(SHAPES, list(self.PATHS)).score)

    def test_of_several_the_message_names_one(self):
        table = pd.DataFrame({"label": [1, 2], "file": self.PATHS})
        with pytest.raises(InputError, match=r"takes pictures, and the table has 2 columns: .* as table\['file'\]"):
            fgonnx.explain(SHAPES, table)
