"""Class names are read from the usual files and found by what users type."""

import json
import pickle
import re
import sys

import onnx
import pytest

from fgonnx import Explainer
from fgonnx.engine.model.load import load as load_model
from fgonnx.errors import InputError, ModelError, OptionError, TargetError
from fgonnx.labels import Label, align, from_json, load, names_of, resolve, to_json
from tests.support import pictures, small_cnn

FILES = {
    "plain text": ("l.txt", "cat\ndog\n", ("cat", "dog"), (None, None)),
    "windows text": ("l.txt", "\ufeffcat\r\ndog\r\n\r\n", ("cat", "dog"), (None, None)),
    "synset": (
        "synset.txt",
        "n01440764 tench, Tinca tinca\nn01443537 goldfish\n",
        ("tench, Tinca tinca", "goldfish"),
        ("n01440764", "n01443537"),
    ),
    "only identifiers": ("l.txt", "n01440764\nn01443537", ("n01440764", "n01443537"), (None, None)),
    "csv": ("l.csv", "dog,1\ncat,0\n", ("cat", "dog"), (None, None)),
    "csv, index first": ("l.csv", "1,dog\n0,cat\n", ("cat", "dog"), (None, None)),
    "csv with heading": ("l.csv", "name,index\ndog,1\n\ncat,0\n", ("cat", "dog"), (None, None)),
    "csv with commas": ("l.csv", '"tench, Tinca tinca",0\n', ("tench, Tinca tinca",), (None,)),
    "csv of digits": ("l.csv", "7,0\n8,1\n", ("7", "8"), (None, None)),
    "json list": ("l.json", '["cat", "dog"]', ("cat", "dog"), (None, None)),
    "json object": ("l.json", '{"1": "dog", "0": "n02123045 cat"}', ("cat", "dog"), ("n02123045", None)),
    "keras": ("l.json", '{"1": ["n2", "dog"], "0": ["n02123045", "cat"]}', ("cat", "n2 dog"), ("n02123045", None)),
    "classes of folders": ("l.json", '{"dog": 1, "cat": 0}', ("cat", "dog"), (None, None)),
    "hugging face": ("config.json", '{"id2label": {"0": "cat", "1": "dog"}}', ("cat", "dog"), (None, None)),
    "timm": ("config.json", '{"label_names": ["cat", "dog"]}', ("cat", "dog"), (None, None)),
    "timm's descriptions": (
        "config.json",
        '{"pretrained_cfg": {"label_names": ["n02123045", "d"], "label_descriptions": {"n02123045": "cat"}}}',
        ("cat", "d"),
        ("n02123045", None),
    ),
    "timm's descriptions in order": (
        "config.json",
        '{"label_names": ["n02123045", "d"], "label_descriptions": ["cat", "dog"]}',
        ("cat", "dog"),
        ("n02123045", None),
    ),
    "yaml list": ("data.yaml", "nc: 2\nnames: [cat, dog]\n", ("cat", "dog"), (None, None)),
    "yaml mapping": ("data.yml", "names:\n  1: dog\n  0: cat\n", ("cat", "dog"), (None, None)),
    "numbers and colons": ("l.txt", "1: dog\n0: cat\n", ("cat", "dog"), (None, None)),
    "numbers and tabs": ("l.txt", "0\tcat\n1\tdog\n", ("cat", "dog"), (None, None)),
    "numbers and spaces": ("l.txt", "0 cat\n1 big dog\n", ("cat", "big dog"), (None, None)),
    "numbers of names": ("l.txt", "7 seas\n11 men\n", ("7 seas", "11 men"), (None, None)),
    "digits": ("l.txt", "1\n0\n", ("1", "0"), (None, None)),
    "python": ("l.txt", "{0: 'cat',\n 1: 'dog'}\n", ("cat", "dog"), (None, None)),
    "python's list": ("l.txt", "['cat',\n 'dog']\n", ("cat", "dog"), (None, None)),
    "brackets": ("l.txt", "[unknown]\ndog\n", ("[unknown]", "dog"), (None, None)),
}


@pytest.mark.parametrize("name", FILES)
def test_labels_are_loaded(tmp_path, name):
    file, text, labels, wnids = FILES[name]
    path = tmp_path / file
    path.write_bytes(text.encode())
    loaded = load(path)
    assert loaded == labels
    assert tuple(label.wnid for label in loaded) == wnids


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("l.txt", None, "does not exist: check the spelling"),
        ("l.txt", b" \n", "is empty: write one class name per line"),
        ("l.txt", b"\xff\xfe\x00", "is not UTF-8 text: save it as UTF-8"),
        ("l.txt", b"cat\n\ndog", "has a blank line 2: one name per class"),
        ("l.json", b"[1, 2]", "must hold a JSON list of names, or an object"),
        ("l.json", b"[]", "must hold a JSON list of names, or an object"),
        ("l.json", b"[", "is not JSON (line 1: Expecting value)"),
        ("l.json", b'{"a": "cat"}', "'a' is not an index: number the classes 0..0"),
        ("l.json", b'{"0": "cat", "2": "dog"}', "class 1 has no name: number the classes 0..1"),
        ("l.json", b'{"0": ["a", "b", "c"]}', "must hold a JSON list of names"),
        ("l.json", b'{"cat": 0, "dog": 2}', "class 1 has no name: number the classes 0..1"),
        ("l.json", b'{"cat": true, "dog": false}', "must hold a JSON list of names"),
        ("config.json", b'{"id2label": {"0": "LABEL_0"}}', "names no classes: its id2label or label_names"),
        ("l.txt", b"1: cat\n2: dog", "class 0 has no name: number the classes 0..1"),
        ("l.txt", b"1 cat\n2 dog", "class 0 has no name: number the classes 0..1"),
        ("l.txt", b"{0: cat,\n1: dog}", "begins as an object of JSON and is none"),
        ("data.yaml", b"names: [cat", "is not YAML"),
        ("data.yaml", b"nc: 80\n", "class 0 has no name"),
        ("l.csv", b"cat,0\ndog,0", "an index occurs twice: number the classes 0..1"),
        ("l.csv", b"cat,0,x", "row 1 has 3 columns, not 2: write 'name,index'"),
        ("l.csv", b"cat,0\ndog,b", "no column holds an index in every row"),
    ],
)
def test_broken_label_files_are_refused(tmp_path, file, content, message):
    path = tmp_path / file
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_label_file(tmp_path):
    with pytest.raises(InputError, match=r"is a folder: name a \.txt, \.csv or \.json file"):
        load(tmp_path)


def test_metadata_keeps_the_identifiers():
    labels = (Label("tench, Tinca tinca", "n01440764"), "hérisson")
    stored = to_json(labels)
    assert json.loads(stored) == ["n01440764 tench, Tinca tinca", "hérisson"]
    assert from_json(stored) == labels
    assert from_json(stored)[0].wnid == "n01440764"


def test_metadata_errors_name_the_key():
    with pytest.raises(InputError, match=r"metadata 'fgonnx\.labels' must hold a JSON list"):
        from_json("3")


def test_a_model_gives_them_with_their_identifiers():
    first, second = stored_in_a_model('["n01440764 tench, Tinca tinca", "cat"]')
    assert (first, first.wnid, second) == ("tench, Tinca tinca", "n01440764", "cat")


@pytest.mark.parametrize(("text", "message"), [("cat", "is not JSON"), ("[1]", "must hold a JSON list of names")])
def test_a_model_whose_metadata_holds_none_is_named(text, message):
    with pytest.raises(ModelError, match=rf"its metadata entry 'fgonnx\.labels' {message}"):
        stored_in_a_model(text)


def stored_in_a_model(text):
    proto = small_cnn()
    onnx.helper.set_model_props(proto, {"fgonnx.labels": text})
    return load_model(proto).labels()


def test_a_label_survives_pickling():
    label = pickle.loads(pickle.dumps(Label("cat", "n02123045")))
    assert (label, label.wnid) == ("cat", "n02123045")


LABELS = (
    Label("tench, Tinca tinca", "n01440764"),
    Label("great white shark, man-eater", "n01484850"),
    Label("tiger shark", "n01491361"),
    Label("tiger", "n02129604"),
    Label("crane", "n02012849"),
    Label("crane", "n03126707"),
    Label("red_maple"),
)


@pytest.mark.parametrize(
    ("target", "index"),
    [
        ("3", 3),
        (" 0 ", 0),
        ("tiger shark", 2),
        ("Tiger", 3),  # a whole label before a part of another
        ("TENCH,  Tinca_tinca", 0),  # case, spaces and underscores do not matter
        ("tinca tinca", 0),  # a synonym
        ("man-eater", 1),
        ("n03126707", 5),  # tells the two cranes apart
        ("N01491361", 2),
        ("red maple", 6),
        ("maple", 6),  # a part that only one label has
        ("white", 1),
    ],
)
def test_a_target_is_found(target, index):
    assert resolve(target, LABELS) == index


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "the target is empty: give the index of a class, or its name"),
        ("7", "target 7 is out of range: the classes are 0..6"),
        ("-1", "target -1 is out of range: the classes are 0..6"),
        ("crane", "target 'crane' fits 2 classes: 4 'crane', 5 'crane'; give the index"),
        ("shark", "fits 2 classes: 1 'great white shark, man-eater', 2 'tiger shark'; give the index"),
        ("tigre", "target 'tigre' is no label of this model: did you mean 3 'tiger'"),
        ("Tinca tinka", "did you mean 0 'tench, Tinca tinca'?"),
        ("xyzzy", "is no label of this model: give an index 0..6, or a name such as 'tench, Tinca tinca'"),
    ],
)
def test_a_doubtful_target_is_refused(target, message):
    with pytest.raises(TargetError, match=re.escape(message)):
        resolve(target, LABELS)


def test_many_candidates_are_not_all_listed():
    with pytest.raises(TargetError, match=r"fits 20 classes: 0 'cat 0', .*5 'cat 5', and 14 more; give the index"):
        resolve("cat", [f"cat {i}" for i in range(20)])


def test_without_labels_only_indices_are_understood():
    assert resolve("12") == 12
    with pytest.raises(TargetError, match="'cat' is a name but the model has no labels: give an index or a label file"):
        resolve("cat")
    with pytest.raises(TargetError, match=r"target 10 is out of range: the classes are 0\.\.9"):
        resolve("10", n_classes=10)
    with pytest.raises(TargetError, match="target -3 is out of range: the classes are 0 or more"):
        resolve("-3")


THOUSAND = tuple(f"class {i}" for i in range(1000))


@pytest.mark.parametrize(
    ("labels", "n_classes", "aligned", "note"),
    [
        (("cat", "dog"), 2, ("cat", "dog"), None),
        (THOUSAND, 1001, ("background", *THOUSAND), "'background' added in front: the model has 1001 classes"),
        (("__background", "cat"), 1, ("cat",), "'__background' dropped from the front: the model has 1 classes"),
    ],
)
def test_a_background_class_is_aligned(labels, n_classes, aligned, note):
    result, said = align(labels, n_classes)
    assert result == aligned
    assert said is None if note is None else said.startswith(note)


@pytest.mark.parametrize(("labels", "n_classes"), [(("cat", "dog"), 3), (("cat", "dog"), 1), (THOUSAND, 999)])
def test_other_mismatches_are_refused(labels, n_classes):
    message = f"{len(labels)} labels do not fit a model with {n_classes} classes: give the label file of this model"
    with pytest.raises(TargetError, match=message):
        align(labels, n_classes)


def test_yaml_needs_its_reader(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "data.yaml").write_text("names: [cat, dog]")
    with pytest.raises(InputError, match="YAML needs PyYAML: pip install pyyaml"):
        load(tmp_path / "data.yaml")


@pytest.mark.parametrize(
    "given", [{0: "cat", 1: "dog"}, {"1": "dog", "0": "cat"}, {"dog": 1, "cat": 0}, {0: ("n02123045", "cat"), 1: "dog"}]
)
def test_mappings_are_labels(given):
    if isinstance(given.get(0), tuple):
        with pytest.raises(OptionError, match="labels= must hold"):
            names_of(given)
    else:
        assert names_of(given) == ("cat", "dog")


@pytest.mark.parametrize(
    ("given", "why"), [({1: "cat", 2: "dog"}, "class 0 has no name"), ({}, "must hold"), ({0: 1.5}, "must hold")]
)
def test_mappings_that_name_no_classes_are_refused(given, why):
    with pytest.raises(OptionError, match=why):
        names_of(given)


@pytest.mark.parametrize(("count", "named"), [(1, "1 class"), (2, "2 classes"), (7, "7 classes")])
def test_labels_beside_a_model_that_do_not_fit_are_told(tmp_path, count, named):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {i: f"c{i}" for i in range(count)}}))
    e = Explainer(tmp_path / "m.onnx")(pictures(1))
    entries = next(iter(e.outputs.values())).shape[1]
    assert f"labels: those found with the model name {named}, the model has {entries}: not used" in e.notes


GAPS = {
    "in the middle": ({0: "ant", 1: "bee", 3: "dog", 4: "eel"}, [2], "class 2 has no name and is called by its number"),
    "at the start": ({1: "bee", 2: "cat", 3: "dog", 4: "eel"}, [0], "class 0 has no name and is called by its number"),
    "several": ({4: "eel", 1: "bee"}, [0, 2, 3], "classes 0, 2, 3 have no names and are called by their numbers"),
}


@pytest.mark.parametrize("key", ["id2label", "names", "config.json"])
@pytest.mark.parametrize(("named", "gaps", "said"), GAPS.values(), ids=GAPS)
def test_gaps_in_names_shift_no_class_and_are_told(tmp_path, key, named, gaps, said):
    net = small_cnn()
    if key == "config.json":
        (tmp_path / key).write_text(json.dumps({"id2label": named}))
    else:
        net.metadata_props.add(key=key, value=str(named))
    onnx.save(net, tmp_path / "m.onnx")
    e = Explainer(tmp_path / "m.onnx")(pictures(1), "eel")
    assert e.target.tolist() == [4]
    assert any(note.startswith(f"labels: {said}") for note in e.notes)
    names = {
        entry["index"]: entry["label"]
        for entry in Explainer(tmp_path / "m.onnx", scores=True)(pictures(1)).to_dict()["top5"]
    }
    assert names == {**{i: str(i) for i in gaps}, **named}


def test_a_gap_at_the_end_is_a_number_that_does_not_fit(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {0: "ant", 2: "cat"}}))
    e = Explainer(tmp_path / "m.onnx")(pictures(1))
    assert "labels: those found with the model name 3 classes, the model has 5: not used" in e.notes
    assert e.to_dict()["top5"] == [] or e.to_dict()["top5"][0]["label"] is None
