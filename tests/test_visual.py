"""Pictures of explanations: colours mean values, the photo stays visible, the panel keeps its promises of size."""

import re

import numpy as np
import pytest

from fgonnx.errors import InputError, OptionError
from fgonnx.pictures.show import sheet, text
from fgonnx.pictures.show.sheet import Certificate
from fgonnx.pictures.show.visual import COLORMAPS, heat, overlay, panel

GREY = np.full((40, 60, 3), 128, np.uint8)
RED, BLUE = np.array(sheet.POSITIVE), np.array(sheet.NEGATIVE)


def spot(height=40, width=60):
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((rows - height / 2) ** 2 + (columns - width / 2) ** 2) / 50)


def luminance(rgb):
    return rgb.astype(float) @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize("colormap", [name for name in COLORMAPS if name != "turbo"])
def test_more_saliency_is_brighter(colormap):
    rgb = heat(np.linspace(0, 1, 256)[None], percentile=100, colormap=colormap)
    assert rgb.shape == (1, 256, 3)
    assert rgb.dtype == np.uint8
    assert (np.diff(luminance(rgb)[0]) > -3).all()  # monotonic but for the rounding of 8-bit colours
    assert luminance(rgb)[0, -1] > luminance(rgb)[0, 0] + 150


def test_a_signed_map_is_blue_white_red_about_zero():
    low, zero, high = heat([[-2.0, 0.0, 2.0]], signed=True)[0].astype(int)
    assert low[2] > low[0] + 50
    assert zero.min() >= 253
    assert high[0] > high[2] + 50


def test_the_zero_of_a_signed_map_does_not_move():
    assert heat([[0.0, 5.0]], signed=True)[0, 0].min() >= 253


def test_one_hot_pixel_does_not_darken_the_rest():
    values = np.linspace(0, 1, 10_000).reshape(100, 100)
    values[0, 0] = 1000.0
    assert luminance(heat(values)).mean() > 80
    assert luminance(heat(values, percentile=100)).mean() < 10


def test_rare_saliency_is_not_lost_to_the_percentile():
    values = np.zeros((100, 100))
    values[50, 50] = 1.0
    for signed in (False, True):
        rgb = heat(values, signed=signed).astype(int)
        assert abs(rgb[50, 50] - rgb[0, 0]).sum() > 300


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_a_flat_map_has_one_colour(value):
    assert len(np.unique(heat(np.full((4, 4), value)).reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    ("saliency", "options", "error", "message"),
    [
        (np.zeros(3), {}, InputError, "a map to draw must have shape (h, w), got (3,): take one sample"),
        (np.zeros((1, 3, 4)), {}, InputError, "must have shape (h, w), got (1, 3, 4)"),
        (np.zeros((0, 3)), {}, InputError, "must have shape (h, w), got (0, 3)"),
        ([[np.nan]], {}, InputError, "holds NaN or infinity: check the model's weights and its input"),
        ([[np.inf]], {"signed": True}, InputError, "holds NaN or infinity"),
        ([[1.0]], {"percentile": 50}, OptionError, "percentile is 50: give a number above 50, up to 100"),
        ([[1.0]], {"percentile": 101}, OptionError, "percentile is 101"),
        ([[1.0]], {"colormap": "jet"}, OptionError, "colormap 'jet' does not exist: choose one of inferno, viridis"),
    ],
)
def test_what_cannot_be_drawn_is_refused(saliency, options, error, message):
    for draw in (heat, lambda s, **o: overlay(GREY, s, **o)):
        with pytest.raises(error, match=re.escape(message)):
            draw(saliency, **options)


@pytest.mark.parametrize("signed", [False, True])
def test_the_photo_shows_where_the_map_is_silent(signed):
    rgb = overlay(GREY, spot(), signed=signed)
    assert rgb.shape == GREY.shape
    np.testing.assert_allclose(rgb[0, 0], GREY[0, 0], atol=2)
    assert abs(rgb[20, 30].astype(int) - 128).max() > 60


def test_alpha_is_the_opacity_of_the_strongest_place():
    np.testing.assert_array_equal(overlay(GREY, spot(), alpha=0), GREY)
    np.testing.assert_array_equal(overlay(GREY, spot(), alpha=1)[20, 30], heat(spot())[20, 30])


def test_a_small_map_is_stretched_over_the_picture():
    corner = np.zeros((4, 6))
    corner[0, 0] = 1.0
    rgb = overlay(GREY, corner).astype(int)
    changed = abs(rgb - 128).sum(axis=2) > 30
    assert changed[:8, :8].all()
    assert not changed[20:].any()


def test_the_arguments_stay_as_they_were():
    image, saliency = GREY.copy(), spot()
    image.setflags(write=False)
    saliency.setflags(write=False)
    overlay(image, saliency)
    panel(image, saliency, Certificate("t"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (GREY[:, :, 0], "must be RGB, uint8 of shape (H, W, 3), got uint8 of shape (40, 60)"),
        (GREY / 255, "got float64 of shape (40, 60, 3): see Preprocessing.to_display"),
        ("photo.jpg", "got str"),
        (GREY[:0], "it must hold at least one pixel"),
    ],
)
def test_only_rgb_bytes_are_pictures(image, message):
    for draw in (overlay, lambda i, s: panel(i, s, Certificate("t"))):
        with pytest.raises(InputError, match=re.escape(message)):
            draw(image, spot())


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_has_a_range(alpha):
    with pytest.raises(OptionError, match=r"alpha is .*: give an opacity from 0 \(photo only\) to 1"):
        overlay(GREY, spot(), alpha)


BARS = [("input", 2.0), *((f"/features/layer.{i}/conv/Conv", (-1) ** i * 0.1 * i) for i in range(1, 31))]
LINES = ["explained 12.345678 of 12.345680, residual 2e-7", "localised in the map: 96.3 %"]


@pytest.mark.parametrize("height", [200, 360, 725])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (224, 224), (10, 400), (400, 10), (1, 1), (1500, 2000)])
def test_a_panel_has_the_height_asked_for_and_a_bounded_width(shape, height):
    image = np.full((*shape, 3), 90, np.uint8)
    rgb = panel(image, spot(), Certificate("t", LINES, BARS), height=height)
    assert rgb.shape[0] == height
    assert 1.5 * height < rgb.shape[1] < 4.8 * height
    assert rgb.dtype == np.uint8
    assert rgb[0].min() == 255  # a white margin all round
    assert rgb[:, -1].min() == 255


def test_photo_and_explanation_stand_side_by_side():
    image = np.zeros((306, 306, 3), np.uint8)
    image[:, :, 1] = 200
    rgb = panel(image, np.eye(306), Certificate("t"), height=360)
    assert (rgb[20:300, 20:300] == [0, 200, 0]).all()
    explained = rgb[20:300, 350:620]
    assert (explained == [0, 200, 0]).all(axis=2).any()
    assert not (explained == [0, 200, 0]).all()


def count(rgb, colour):
    return int((abs(rgb.astype(int) - colour).max(axis=2) <= 2).sum())


def test_bars_are_red_for_and_blue_against_and_as_long_as_their_numbers():
    def drawn(value):
        return panel(GREY, spot(), Certificate("t", bars=[("a", 4.0), ("b", value), ("c", -4.0)]))

    assert count(drawn(2.0), RED) == pytest.approx(1.5 * count(drawn(0.0), RED), rel=0.05)
    assert count(drawn(-2.0), BLUE) == pytest.approx(1.5 * count(drawn(0.0), BLUE), rel=0.05)
    assert count(drawn(0.0), RED) == pytest.approx(count(drawn(0.0), BLUE), rel=0.05)


@pytest.mark.parametrize("bars", [[], [("input", 0.0)], [("input", 1e-30), ("b", -1e30)], [("only", -1.0)]])
def test_odd_contributions_are_drawn(bars):
    assert panel(GREY, spot(), Certificate("", bars=bars)).shape[0] == 360


def test_bars_left_out_are_summed_so_that_nothing_is_lost():
    shown = sheet._selected(BARS, 12)
    assert [name for name, _ in shown] == [
        "input",
        *(f"/features/layer.{i}/conv/Conv" for i in range(21, 31)),
        "20 others",
    ]
    assert sum(value for _, value in shown) == pytest.approx(sum(value for _, value in BARS))
    assert sheet._selected(BARS[:12], 12) == BARS[:12]
    assert sheet._selected(BARS[:3], 1) == [("3 others", pytest.approx(2.1))]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([4.2, -1.2345, 0.02195], ["+4.200", "-1.234", "+0.022"]),
        ([12345.6, -1.0], ["+12346", "-1"]),
        ([0.0, 0.0], ["+0.000", "+0.000"]),
        ([1e-8, -2e-9], ["+1.00e-08", "-2.00e-09"]),
    ],
)
def test_numbers_share_their_decimals(values, texts):
    assert sheet._alike(values) == texts


def test_long_text_is_shortened_to_its_width():
    paper = sheet.Sheet(360, 400)
    long = "a/very/long/folder/" * 8 + "photo.jpg: label (0.97)"
    short = paper.fitted(long, 300, 16)
    assert 270 < paper.extent(short, 16) <= 300
    assert short.startswith("a/very")
    assert short.endswith("label (0.97)")
    assert paper.fitted(long, 200, 11, head=0).startswith("...")
    assert paper.fitted("two\nlines", 300, 16) == "two lines"


@pytest.mark.parametrize("name", ["a", "conv1", "layer/2", "Käse"])
def test_text_that_fits_exactly_stays_whole(name):
    paper = sheet.Sheet(480, 400)
    assert paper.fitted(name, paper.extent(name, 10), 10) == name


def pixels(label):
    """What a label looks like, as the title of a panel without anything else."""
    return panel(GREY, spot(), Certificate(label))


LABELS = ["Käse", "Kase", "Kose", "猫", "犬", "é", "è", "e", "γάτα", "кошка", "חתול", "😀", "?", "???", "\ufffd"]


def test_different_labels_look_different():
    drawn = {label: pixels(label).tobytes() for label in LABELS}
    assert len(set(drawn.values())) == len(LABELS)
    assert pixels("").tobytes() not in drawn.values()


@pytest.fixture
def fontless(monkeypatch):
    """A system without fonts."""
    monkeypatch.setattr(text, "_system_fonts", tuple)
    for cached in (text._source, text._runs):
        cached.cache_clear()
    yield
    for cached in (text._source, text._runs):
        cached.cache_clear()


@pytest.mark.parametrize("label", ["Käse, Ærø, Łódź, Đồng hồ", "γάτα", "кошка їжак", "≤ 5 °C → ½"])
@pytest.mark.usefixtures("fontless")
def test_latin_greek_and_cyrillic_need_no_font_of_the_system(label):
    assert text.readable(label) == label
    assert text.readable(f"猫 {label}") == f"\\u732b {label}"  # not a box that looks the same for all


@pytest.mark.parametrize("label", ["猫", "เหมียว", "བྱི་ལ"])
def test_other_scripts_are_drawn_with_a_font_that_has_them_or_as_code_points(label):
    for path, run in text._runs(label):
        assert path != text.FONT or run.startswith("\\u")


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("cat\udc80", "cat\\udc80"),
        ("\ud83d", "\\ud83d"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\u202egnp.exe", "\\u202egnp.exe"),  # would turn the reading direction
        ("tab\tand\r\nline", "tab and line"),
        ("Ka\u0308se", "Käse"),
    ],
)
def test_what_is_no_character_is_written_as_its_code_point(label, shown):
    assert text.readable(label) == shown
    np.testing.assert_array_equal(pixels(label), pixels(shown))


def test_nothing_is_written_beyond_the_sheet():
    few = panel(GREY, spot(), Certificate("t" * 500, ["w" * 500] * 99, [("n" * 500, 1.0)] * 99))
    margin = 14
    assert few[:, -margin:].min() == 255
    assert few[-margin + 2 :].min() == 255


@pytest.mark.parametrize(
    ("bars", "height", "error", "message"),
    [
        ([], 100, OptionError, "height is 100: the text of a panel needs 200 pixels or more"),
        ([("conv1", float("nan"))], 360, InputError, "the contribution of 'conv1' is NaN or infinite"),
        ([("a", 1.0), ("b", float("inf"))], 360, InputError, "the contribution of 'b' is NaN or infinite"),
    ],
)
def test_a_panel_refuses_what_it_cannot_show(bars, height, error, message):
    with pytest.raises(error, match=re.escape(message)):
        panel(GREY, spot(), Certificate("t", bars=bars), height=height)


def test_names_of_bars_that_would_be_shortened_alike_are_told_apart(monkeypatch):
    written = []
    monkeypatch.setattr(sheet.Sheet, "write", lambda self, text, *where, **how: written.append(text))
    names = [f"blocks.{i}/{'a_long_middle/' * 4}norm/BatchNormalization_output_0" for i in range(5)]
    panel(np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40)), Certificate("title", [], [(n, 1.0) for n in names]))
    shown = [text for text in written if "..." in text]
    assert len(shown) == len(set(shown)) == 5
