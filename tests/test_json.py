"""`--json`: one object on stdout and nothing else, with the keys of docs/json.md."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli_support import IMAGES, ROOT, SHAPES, run

PAGE = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = {
    "explain": ["explain", SHAPES, IMAGES, "-o", "out", "--no-cache"],
    "check": ["check", SHAPES, "--no-cache", "--directions", 1],
    "compare": ["compare", SHAPES, SHAPES, IMAGES, "-o", "out", "--no-cache"],
    "evaluate": [
        "evaluate",
        SHAPES,
        IMAGES,
        "-o",
        "out",
        "--methods",
        "edge",
        "--measures",
        "sparseness",
        "--limit",
        1,
    ],
    "inspect": ["inspect", SHAPES],
}


def keys(command: str) -> set[str]:
    return {
        k for row in re.findall(r"^\| (`.*?) \|", SECTIONS[command], re.MULTILINE) for k in re.findall(r"`(\w+)`", row)
    }


def test_every_command_with_json_is_on_the_page() -> None:
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_stdout_is_one_object_with_the_keys_of_the_page(command, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*COMMANDS[command], "--json")
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)) == keys(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_leaves_stdout_empty(command, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    program, _, *rest = COMMANDS[command]
    done = run(program, "there-is-none.onnx", *rest, "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "there-is-none.onnx" in done.stderr


def test_the_json_is_that_of_the_files(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    records = json.loads(run(*COMMANDS["explain"], "--json").stdout)["records"]
    assert [r["score"] for r in records] == [
        json.loads((tmp_path / "out" / f"{p.stem}.json").read_text())["score"] for p in sorted(IMAGES.iterdir())
    ]
    summary = json.loads(run(*COMMANDS["compare"], "--json").stdout)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())


def test_where_all_pictures_are_equal_none_is_the_worst(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    measures = json.loads(run(*COMMANDS["compare"], "--json").stdout)["measures"]
    assert measures["top1"]["worst"] is None
    assert "circle.png" not in run(*COMMANDS["compare"]).stdout.partition("Agreement")[2].partition("layer")[0]


def test_a_verdict_says_what_was_not_tested() -> None:
    said = json.loads(run(*COMMANDS["check"], "--json").stdout)["not_tested"]
    assert len(said) == 2
    printed = run(*COMMANDS["check"]).stdout
    assert all(f"not tested    {what}" in printed for what in said)
    assert "of your own" not in run("check", SHAPES, IMAGES / "star.png", "--no-cache", "--directions", 1).stdout
