"""A picture becomes the numbers a model was trained on: x = (pixel * scale - mean) / std, in its order and shape."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from fgonnx.errors import InputError, PreprocessingError
from fgonnx.pictures.read.complete import complete
from fgonnx.pictures.read.preprocess import Preprocessing
from fgonnx.pictures.read.presets import PRESETS, parse

NCHW = {"layout": "NCHW", "channels": "RGB", "dtype": "float32"}
COLOURS = np.array([[[255, 0, 51], [10, 20, 30]]], np.uint8)  # one row, two pixels


def pre(**changes):
    return Preprocessing(**{**NCHW, **changes})


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("preset", "channels", "first_pixel"),
    [
        ("raw", "RGB", (255, 0, 51)),
        ("unit", "RGB", (1, 0, 0.2)),
        ("symmetric", "RGB", (1, -1, -0.6)),
        ("tf", "RGB", (1, -1, -0.6)),
        ("yolo", "RGB", (1, 0, 0.2)),
        ("imagenet", "RGB", ((1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225)),
        ("cifar", "RGB", ((1 - 0.4914) / 0.2470, -0.4822 / 0.2435, (0.2 - 0.4465) / 0.2616)),
        ("caffe", "BGR", (51 - 104, 0 - 117, 255 - 123)),
        ("gray", "GRAY", (82 / 255,)),  # 0.299 * 255 + 0.587 * 0 + 0.114 * 51, a whole grey level
        ("mnist", "GRAY", ((82 / 255 - 0.1307) / 0.3081,)),
    ],
)
def test_presets_compute_what_the_models_were_trained_on(preset, channels, first_pixel):
    completed = complete(PRESETS[preset], ("N", len(first_pixel), None, None), "float32")
    assert completed.channels == channels
    x = completed.apply(COLOURS)
    assert x.shape == (len(first_pixel), 1, 2)
    np.testing.assert_allclose(x[:, 0, 0], first_pixel, rtol=1e-6, atol=1e-6)


def test_every_preset_is_known_by_its_name():
    assert all(preset.name == name for name, preset in PRESETS.items())
    assert set(PRESETS) >= {"imagenet", "tf", "caffe", "unit", "raw", "cifar", "mnist"}


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize(
    ("layout", "channels", "expected"),
    [
        ("NCHW", "RGB", [[[255, 10]], [[0, 20]], [[51, 30]]]),
        ("NCHW", "BGR", [[[51, 30]], [[0, 20]], [[255, 10]]]),
        ("NHWC", "RGB", [[[255, 0, 51], [10, 20, 30]]]),
        ("NHWC", "BGR", [[[51, 0, 255], [30, 20, 10]]]),
        ("NHWC", "GRAY", [[[82], [18]]]),
    ],
)
def test_layout_channels_and_dtype(layout, channels, dtype, expected):
    x = pre(layout=layout, channels=channels, dtype=dtype).apply(COLOURS)
    np.testing.assert_array_equal(x, expected)
    assert x.dtype == dtype
    assert x.flags.c_contiguous


@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("size", [(32, 32), (32, 48), (48, 32), (1, 1)])
@pytest.mark.parametrize("shape", [(32, 32), (100, 60), (7, 90), (1, 1)])
def test_the_result_has_the_size_of_the_model(resize, size, shape):
    prepared = pre(resize=resize, size=size)
    assert prepared.apply(noise(*shape)).shape == (3, *size)
    assert prepared.to_display(noise(*shape)).shape == (*size, 3)
    assert prepared.place(np.ones(size), shape).shape == shape


def test_without_a_size_the_picture_keeps_its_own():
    image = noise(13, 9)
    np.testing.assert_array_equal(pre().to_display(image), image)


def test_a_crop_cuts_the_centre_of_the_scaled_picture():
    image = np.zeros((128, 256, 3), np.uint8)
    image[:, 64:192] = 255  # the central square
    image[:, 72:184] = 100  # what the crop keeps of it: 112 of 128
    seen = pre(resize="crop", size=(112, 112)).to_display(image)  # 112 * 256 / 224 = 128: no scaling
    assert np.unique(seen).tolist() == [100]


@pytest.mark.parametrize(
    ("resize_to", "size", "kept"),
    [
        (None, (224, 224), 224 / 256),
        (None, (299, 299), 299 / 342),
        (224, (224, 224), 1.0),
        (448, (224, 224), 0.5),
        (16, (224, 224), 1.0),  # too small for the crop: the picture is scaled until it covers it
    ],
)
def test_resize_to_is_the_shorter_side_before_the_crop(resize_to, size, kept):
    ramp = np.repeat(np.linspace(0, 255, 512).astype(np.uint8)[:, None, None], 1024, axis=1).repeat(3, axis=2)
    seen = pre(resize="crop", resize_to=resize_to, size=size).to_display(ramp)
    assert int(seen.max()) - int(seen.min()) == pytest.approx(255 * kept, abs=2)


@pytest.mark.parametrize(
    ("shape", "resize_to", "scaled"),
    [
        ((427, 640), 256, (256, 383)),  # 383.7
        ((640, 427), 256, (383, 256)),
        ((375, 500), 235, (235, 313)),  # 313.3
        ((500, 333), 232, (348, 232)),  # 348.3
        ((480, 480), 256, (256, 256)),
        ((1, 999), 256, (256, 255744)),
    ],
)
def test_the_longer_side_is_rounded_down_as_torchvision_does(shape, resize_to, scaled):
    assert pre(resize="crop", resize_to=resize_to, size=(224, 224))._frame(*shape).scaled == scaled


def test_a_letterbox_shows_the_whole_picture_on_grey():
    seen = pre(resize="letterbox", size=(8, 8), fill=77).to_display(np.full((2, 4, 3), 255, np.uint8))
    assert (seen[2:6] == 255).all()
    assert (seen[:2] == 77).all()
    assert (seen[6:] == 77).all()


def test_auto_averages_where_the_picture_shrinks():
    checkers = np.indices((64, 64)).sum(0) % 2 * 255
    image = np.repeat(checkers[:, :, None], 3, axis=2).astype(np.uint8)
    assert np.ptp(pre(size=(16, 16)).to_display(image)) == 0
    assert set(np.unique(pre(size=(16, 16), interpolation="nearest").to_display(image))) <= {0, 255}


@pytest.mark.parametrize(
    "shape", [(64, 64), (130, 97), (20, 200), (300, 451), (7, 5), (1, 1), (42, 90), (1276, 974)], ids=str
)
@pytest.mark.parametrize("size", [(48, 64), (14, 14), (224, 224), (955, 1369)], ids=str)
def test_nearest_takes_the_pixels_that_pillow_takes(shape, size):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.NEAREST)
    np.testing.assert_array_equal(pre(size=size, interpolation="nearest").to_display(image), expected)


def test_the_display_is_grey_where_the_model_is_colour_blind():
    seen = pre(channels="GRAY").to_display(COLOURS)
    np.testing.assert_array_equal(seen, [[[82] * 3, [18] * 3]])


@pytest.mark.parametrize(
    ("resize", "size", "outside"),
    [
        ("stretch", (50, 50), 0),
        ("letterbox", (50, 50), 0),
        # Of 100 x 200, a crop sees the central 87.5 x 87.5; its border is blurred by a pixel.
        ("crop", (50, 50), 1 - (0.875 * 100) ** 2 / (100 * 200)),
    ],
)
def test_a_map_goes_back_to_where_the_model_looked(resize, size, outside):
    placed = pre(resize=resize, size=size).place(np.ones(size), (100, 200, 3))
    assert placed.shape == (100, 200)
    assert placed.dtype == np.float32
    assert np.isfinite(placed).all()
    assert (placed == 0).mean() == pytest.approx(outside, abs=0.03)
    assert placed.max() == 1


@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
def test_a_spot_comes_back_to_its_place(resize):
    image = np.zeros((120, 80, 3), np.uint8)
    image[50:54, 44:48] = 255
    prepared = pre(resize=resize, size=(64, 64))
    placed = prepared.place(prepared.to_display(image)[:, :, 0] - (114.0 if resize == "letterbox" else 0.0), (120, 80))
    row, column = np.unravel_index(placed.argmax(), placed.shape)
    assert (row, column) == (pytest.approx(51.5, abs=2), pytest.approx(45.5, abs=2))


def test_a_map_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"the map has shape \(7, 7\) but the model sees \(8, 8\) of this picture"):
        pre(size=(8, 8)).place(np.zeros((7, 7)), (20, 20))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), "(H, W, 3) or (H, W, 4), got uint8 of shape (4, 4)"),
        (np.zeros((4, 4, 3)), "got float64 of shape (4, 4, 3): read it with images.read"),
        ([[1]], "got list"),
        (np.zeros((0, 4, 3), np.uint8), "must hold at least one pixel"),
    ],
)
def test_only_rgb_bytes_are_pictures(image, message):
    with pytest.raises(InputError, match=re.escape(message)):
        pre().apply(image)


@pytest.mark.parametrize("field", ["layout", "channels", "dtype"])
def test_an_open_field_must_be_completed_first(field):
    with pytest.raises(PreprocessingError, match=f"{field} is not known: take it from the model with complete"):
        pre(**{field: None}).apply(COLOURS)


def test_resize_to_needs_a_size():
    with pytest.raises(PreprocessingError, match="resize_to is set but size is not: set size"):
        pre(resize="crop", resize_to=256).apply(COLOURS)


@pytest.mark.parametrize(
    ("shape", "dtype", "found"),
    [
        (("N", 3, 224, 200), "float32", ("NCHW", "RGB", (224, 200), "float32")),
        ((1, 224, 200, 3), np.float16, ("NHWC", "RGB", (224, 200), "float16")),
        ((None, 1, 28, 28), np.dtype("uint8"), ("NCHW", "GRAY", (28, 28), "uint8")),
        (("N", "H", "W", 3), np.float32, ("NHWC", "RGB", None, "float32")),
        (("N", 3, -1, -1), np.float32, ("NCHW", "RGB", None, "float32")),
    ],
)
def test_the_input_of_a_model_completes_a_description(shape, dtype, found):
    completed = complete(Preprocessing(), shape, dtype)
    assert (completed.layout, completed.channels, completed.size, completed.dtype) == found


def test_completing_changes_nothing_that_is_known():
    known = pre(size=(8, 9), channels="BGR", layout="NHWC", dtype="float16")
    assert complete(known, ("N", "H", "W", "C"), "float16") == known


@pytest.mark.parametrize(
    ("changes", "shape", "dtype", "message"),
    [
        ({}, (1, 10), "float32", "input, with its batch (1, 10), has 2 axes and a picture needs 4"),
        ({}, (1, 3, 8, 3), "float32", "could have its channels first or last: set layout to NCHW or NHWC"),
        ({}, (1, 5, 8, 8), "float32", "has no axis of 1, 3 or 4 channels, second or last: set layout"),
        ({}, (1, 4, 8, 4), "float32", "could have its channels first or last: set layout to NCHW or NHWC"),
        ({"channels": "RGB"}, (1, 4, 8, 8), "float32", "set channels=RGBA or BGRA, with one mean and std for each"),
        ({"layout": "NHWC"}, (1, 3, 8, 8), "float32", "layout NHWC gives the model's input (1, 3, 8, 8) 8 channels"),
        ({"layout": "NCHW"}, (1, "C", 8, 8), "float32", "leaves the number of channels open: set channels"),
        (
            {"channels": "RGB"},
            (1, 1, 8, 8),
            "float32",
            "channels=RGB does not fit the model's input (1, 1, 8, 8) with 1",
        ),
        ({"channels": "GRAY"}, (1, 3, 8, 8), "float32", "set channels=RGB or BGR, with one mean and std for each"),
        ({"mean": (1, 2, 3)}, (1, 1, 8, 8), "float32", "mean has 3 numbers: give 1 or 1 for channels=GRAY"),
        (
            {"size": (9, 8)},
            (1, 3, 8, 8),
            "float32",
            "size 9x8 does not fit the model's input (1, 3, 8, 8): leave it out",
        ),
        ({"size": (9, 8)}, (1, 3, "H", 7), "float32", "size 9x8 does not fit the model's input (1, 3, ?, 7)"),
        ({}, (1, 3, "H", 8), "float32", "leaves one side open: set size to height and width"),
        (
            {"dtype": "float16"},
            (1, 3, 8, 8),
            "float32",
            "dtype=float16 does not fit the model's input, which is float32",
        ),
        ({}, (1, 3, 8, 8), "int8", "the model's input is int8, and pictures become float32, float16, uint8"),
        ({}, (1, 3, 8, 8), "tensor(bfloat16)", "the model's input is tensor(bfloat16), and pictures become"),
        ({"scale": 1 / 255}, (1, 3, 8, 8), "uint8", "a uint8 input takes pixels as they are: use scale=1"),
    ],
)
def test_a_contradiction_with_the_model_is_an_error(changes, shape, dtype, message):
    with pytest.raises(PreprocessingError, match=re.escape(message)):
        complete(Preprocessing(**changes), shape, dtype)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "CHW"}, "layout is 'CHW': choose one of NCHW, NHWC"),
        ({"resize": "fit"}, "resize is 'fit': choose one of stretch, crop, letterbox"),
        ({"channels": "ARGB"}, "channels is 'ARGB': choose one of RGB, BGR, GRAY, RGBA, BGRA"),
        ({"dtype": "int8"}, "dtype is 'int8': choose one of float32, float16, uint8"),
        ({"interpolation": None}, "interpolation is None: choose one of auto, nearest"),
        ({"size": (0, 8)}, "size is (0, 8): give height and width, two integers above 0"),
        ({"size": 224}, "size is 224: give height and width"),
        ({"size": (8.0, 8)}, "size is (8.0, 8): give height and width"),
        ({"resize": "crop", "resize_to": -1}, "resize_to is -1: give an integer above 0"),
        ({"resize_to": 256}, "resize_to only goes with resize=crop, not stretch: leave it out"),
        ({"scale": 0}, "scale is 0.0: give a number above 0"),
        ({"scale": "1/255"}, "scale holds '1/255': give finite numbers"),
        ({"mean": ()}, "mean has 0 numbers: give 1 or 3"),
        ({"mean": (0.5, 0.5)}, "mean has 2 numbers: give 1 or 3"),
        ({"mean": (float("nan"),)}, "mean holds nan: give finite numbers"),
        ({"mean": True}, "mean holds True: give finite numbers"),
        ({"std": (1, 0, 1)}, "std is [1, 0, 1]: it divides, so every number must be above 0"),
        ({"std": (1, 1, 1), "channels": "GRAY"}, "std has 3 numbers: give 1 or 1 for channels=GRAY"),
        ({"fill": 256}, "fill is 256: give a grey level, an integer 0..255"),
        ({"name": 3}, "name is 3: give a text, or leave it out"),
        ({"dtype": "uint8", "scale": 1 / 255}, "use scale=1, mean=0, std=1 (preset 'raw'), or dtype=float32"),
    ],
)
def test_a_bad_value_says_what_is_possible(changes, message):
    with pytest.raises(PreprocessingError, match=re.escape(message)):
        Preprocessing(**changes)


def test_the_stored_form_is_read():
    stored = (
        '{"layout": "NCHW", "size": [64, 64], "resize": "stretch", "channels": "RGB", "scale": 0.00392156862745098, '
        '"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "dtype": "float32"}'
    )
    assert Preprocessing.from_json(stored) == pre(size=(64, 64), scale=1 / 255, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize("name", PRESETS)
def test_json_keeps_everything(name):
    stored = PRESETS[name].to_json()
    assert None not in json.loads(stored).values()
    assert Preprocessing.from_json(stored) == PRESETS[name]


def test_all_keys_are_optional():
    assert Preprocessing.from_json("{}") == Preprocessing()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the preprocessing is not JSON (line 1: "),
        ("[]", "the preprocessing is a JSON list: write an object"),
        ('{"means": 0.5}', "key 'means' does not exist (did you mean 'mean'?): give some of layout, size"),
        ('{"size": "224"}', "size is '224': give height and width"),
        ('{"layout": ["NCHW"]}', "layout is ['NCHW']: choose one of"),
    ],
)
def test_broken_json_is_refused(text, message):
    with pytest.raises(PreprocessingError, match=re.escape(message)):
        Preprocessing.from_json(text)


IMAGENET = PRESETS["imagenet"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("imagenet", IMAGENET),
        ("imagenet, size=224, layout=nhwc", dataclasses.replace(IMAGENET, size=(224, 224), layout="NHWC")),
        ("imagenet,resize=stretch", dataclasses.replace(IMAGENET, resize="stretch")),
        ("imagenet,resize_to=232", dataclasses.replace(IMAGENET, resize_to=232)),
        ("size=64x32", Preprocessing(size=(64, 32))),
        ("size=64:32", Preprocessing(size=(64, 32))),
        (
            "scale=1/255,mean=0.5:0.5:0.5,std=.25",
            Preprocessing(scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.25,)),
        ),
        ("yolo,fill=0,interpolation=area", dataclasses.replace(PRESETS["yolo"], fill=0, interpolation="area")),
        # The numbers of a preset follow their colours...
        ("caffe,channels=RGB", Preprocessing(channels="RGB", mean=(123, 117, 104))),
        # ...unless they are given too.
        ("caffe,channels=RGB,mean=1:2:3", Preprocessing(channels="RGB", mean=(1, 2, 3))),
    ],
)
def test_a_description_is_typed(text, expected):
    parsed = parse(text)
    assert dataclasses.replace(parsed, name=None) == dataclasses.replace(expected, name=None)
    assert parsed.name == text


def test_a_description_is_read_from_a_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"size": [8, 8]}')
    assert parse(str(path)) == Preprocessing(size=(8, 8), name="mine.json")
    path.write_text('{"name": "ours"}')
    assert parse(str(path)).name == "ours"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ", "the preprocessing is empty: give one of imagenet, "),
        ("imagnet", "preset 'imagnet' does not exist (did you mean 'imagenet'?): give one of imagenet, "),
        ("xyz", "preset 'xyz' does not exist: give one of"),
        ("imagenet,224", "'224' is not of the form NAME=VALUE; write for example size=224"),
        ("imagenet,size=", "'size=' is not of the form NAME=VALUE"),
        ("imagenet,layuot=NHWC", "key 'layuot' does not exist (did you mean 'layout'?)"),
        ("size=8,size=9", "'size' is given twice; keep one"),
        ("size=big", "size is 'big': give 224 or 224x320 (height x width)"),
        ("size=1x2x3", "size is (1, 2, 3): give height and width"),
        ("fill=grey", "fill is 'grey': give an integer"),
        ("mean=0.5;0.5", "mean holds '0.5;0.5': give numbers such as 0.5 or 1/255, separated by ':'"),
        ("scale=1/0", "scale holds '1/0': give numbers"),
        ("scale=1:2", "scale holds (1.0, 2.0): give finite numbers"),
        ("layout=CHW", "layout is 'CHW': choose one of NCHW, NHWC"),
        ("missing.json", "preprocessing file 'missing.json' does not exist: check the spelling"),
    ],
)
def test_a_typing_mistake_is_explained(text, message):
    with pytest.raises(PreprocessingError, match=re.escape(message)):
        parse(text)


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"size": 8}')
    with pytest.raises(
        PreprocessingError, match=r"preprocessing file '.*mine\.json': size is 8: give height and width"
    ):
        parse(str(path))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("raw", "raw: the picture's own size, layout? channels? dtype?, x = pixel"),
        (
            "imagenet,size=224,layout=NHWC,dtype=float32",
            "imagenet,size=224,layout=NHWC,dtype=float32: shorter side to 256, centre crop 224x224, NHWC RGB float32, "
            "x = (pixel * 0.00392157 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]",
        ),
        ("yolo,size=8x9", "yolo,size=8x9: letterbox into 8x9 on grey 114, layout? RGB dtype?, x = pixel * 0.00392157"),
        ("size=8,std=2", "size=8,std=2: stretch to 8x8, layout? channels? dtype?, x = pixel / 2"),
        (
            "size=8,interpolation=cubic,mean=1",
            "size=8,interpolation=cubic,mean=1: stretch to 8x8 (cubic), layout? channels? dtype?, x = pixel - 1",
        ),
    ],
)
def test_a_description_says_what_it_does_in_one_line(text, line):
    assert parse(text).describe() == line


class TestAlpha:
    RGBA = np.dstack([COLOURS, np.array([[255, 0]], np.uint8)])

    @pytest.mark.parametrize(("channels", "order"), [("RGBA", [0, 1, 2, 3]), ("BGRA", [2, 1, 0, 3])])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_is_a_channel_where_the_model_has_one(self, channels, order, dtype):
        rgba = self.RGBA.astype(dtype)
        np.testing.assert_array_equal(pre(layout="NHWC", channels=channels).apply(rgba), rgba[:, :, order])

    def test_of_a_picture_without_is_opaque(self):
        assert (pre(layout="NHWC", channels="RGBA").apply(COLOURS)[:, :, 3] == 255).all()

    def test_around_a_letterbox_is_opaque(self):
        boxed = pre(layout="NHWC", channels="RGBA", resize="letterbox", size=(8, 8), fill=9).apply(self.RGBA)
        assert set(boxed[0, :, 3]) == {255}
        assert set(boxed[0, :, :3].ravel()) == {9}

    def test_is_blended_where_it_has_none(self):
        white = pre(layout="NHWC").apply(np.zeros((2, 2, 4), np.uint8))
        np.testing.assert_array_equal(white, 255)

    def test_is_not_shown(self):
        assert (
            pre(channels="RGBA").to_display(np.zeros((2, 2, 4), np.uint8)).tolist() == np.full((2, 2, 3), 255).tolist()
        )

    @pytest.mark.parametrize(
        ("shape", "layout"), [((1, 4, 8, 9), "NCHW"), ((1, 8, 9, 4), "NHWC"), ((1, 3, 8, 4), "NCHW")]
    )
    def test_is_the_fourth_channel_of_a_model(self, shape, layout):
        found = complete(Preprocessing(), shape, "float32")
        assert (found.layout, found.channels) == (layout, "RGB" if 3 in shape else "RGBA")


def test_numbers_between_the_levels_are_kept():
    fine = np.full((4, 4, 3), 0.25, np.float32)
    assert pre(layout="NHWC", scale=2.0).apply(fine).max() == 0.5
    assert pre(layout="NHWC", dtype="uint8").apply(fine + 0.5).max() == 1


@pytest.mark.parametrize(
    ("how", "shape"),
    [
        ({"size": (8, 2**31 - 1)}, (4, 4)),
        ({"size": (20_000, 20_000), "resize": "letterbox"}, (4, 4)),
        ({"size": (2_000, 2_000), "resize": "crop"}, (1, 4_000)),
    ],
    ids=["the model's width", "the model's size", "a long picture that covers it"],
)
def test_pixels_that_a_picture_would_become_are_bounded(how, shape):
    pre = Preprocessing(layout="NCHW", channels="RGB", dtype="float32", **how)
    with pytest.raises(
        PreprocessingError, match=r"becomes an input of [\d,]+ pixels, more than the bound of 200,000,000"
    ):
        pre.apply(np.zeros((*shape, 3), np.uint8))
