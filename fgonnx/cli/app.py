"""The command line: explain, inspect, check, compare, convert, evaluate, rewrite."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fgonnx import labels
from fgonnx._version import __version__
from fgonnx.audit import inspection
from fgonnx.audit.check import check as run_checks
from fgonnx.audit.check import random_pictures
from fgonnx.cli import compare, convert, evaluate, terminal
from fgonnx.cli.options import (
    EXPLANATION,
    RUNNING,
    Bind,
    Channel,
    Head,
    Images,
    Input,
    InputShape,
    Labels,
    Layout,
    Method,
    ModelPath,
    NoCache,
    Output,
    Preprocess,
    Profile,
    Providers,
    Psi,
    Rate,
    Set,
    SomeImages,
    Span,
    Target,
    Threads,
)
from fgonnx.engine import methods
from fgonnx.engine.model import bind as binding
from fgonnx.engine.model import save
from fgonnx.engine.model.inputs import choose_input
from fgonnx.engine.model.load import LoadedModel, load
from fgonnx.engine.rewrite.options import CERTIFICATE
from fgonnx.engine.rewrite.rewrite import rewrite
from fgonnx.engine.rewrite.rewritten import sites_of
from fgonnx.errors import OptionError
from fgonnx.jobs.explain import Job, Settings, picture_preprocessing
from fgonnx.jobs.samples import Reader, Sound, find, is_picture

_ROWS = 40  # of the table at the end
_FEW = 3  # pictures that need no progress bar

app = typer.Typer(
    name="fgonnx",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        terminal.out().print(f"fgonnx {__version__}")
        raise typer.Exit


@app.callback()
def fgonnx(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Explain what an ONNX network sees, with full-gradients: a saliency map, and a certificate that it is complete.

    Start with `fgonnx inspect model.onnx`, then `fgonnx explain model.onnx photo.jpg -o out --preprocess imagenet`.
    """


@app.command()
@terminal.command
def explain(
    model: ModelPath,
    inputs: Images,
    folder: Annotated[Path, typer.Option("--output-dir", "-o", metavar="DIR", help="Folder for the results.")],
    target: Target = None,
    preprocess: Preprocess = None,
    labels: Labels = None,
    method: Method = "fullgrad",
    profile: Profile = "full",
    psi: Psi = "abs",
    head: Head = "logits",
    output: Output = None,
    input: Input = None,
    bind: Bind = None,
    rate: Rate = None,
    channel: Channel = None,
    span: Span = None,
    picture: Annotated[
        str, typer.Option(help="The .png: panel (photo, map, certificate), overlay (on the whole photo), heat.")
    ] = "panel",
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=EXPLANATION, help="Noisy copies, references or masks of a method that draws."
        ),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(min=0, rich_help_panel=EXPLANATION, help="Noise, as a fraction of max - min of the input."),
    ] = None,
    random_state: Annotated[
        int | None, typer.Option(min=0, rich_help_panel=EXPLANATION, help="Seed of what is drawn.")
    ] = None,
    set: Set = None,
    engine: Annotated[
        str,
        typer.Option(
            rich_help_panel=RUNNING,
            help="Where gradients come from: fgonnx, or ort-training (ONNX Runtime's training build, docs/engines.md).",
        ),
    ] = "fgonnx",
    providers: Providers = None,
    threads: Threads = None,
    batch_size: Annotated[
        int, typer.Option(min=1, rich_help_panel=RUNNING, help="Pictures in one run; bounds the memory.")
    ] = 8,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what an earlier run with the same settings has done.")
    ] = False,
    no_cache: NoCache = False,
) -> None:
    """Explain the decisions on pictures: for each a .png, the raw map (.npy) and a .json record.

    **Examples**

    - `fgonnx explain resnet.onnx cat.jpg -o out --preprocess imagenet --labels synset.txt`
    - `fgonnx explain resnet.onnx photos/ -o out --preprocess imagenet --target 'tabby cat'` : why a tabby cat?
    - `fgonnx explain resnet.onnx cat.jpg -o out --preprocess imagenet --method grad-cam` : another method
    - `fgonnx explain mobilenet.onnx 'photos/*.jpg' -o out --preprocess tf --psi signed` : what speaks for and against
    - `fgonnx explain yolo.onnx street.jpg -o out --preprocess yolo,layout=NCHW --picture overlay`
    - `fgonnx explain sensor.onnx batch.npy -o out` : arrays need no preprocessing
    - `fgonnx explain vad.onnx speech.wav -o out --span 4000:4576 --bind sr=16000 --bind state=zeros` : sound over time

    The record holds the five largest classes, the score, how exactly the contributions sum to it (completeness), what
    share of them the map shows, and every layer's part. Exit code: 0, or 2 where input or options are wrong.
    """
    drawn = {"samples": samples, "sigma": sigma, "random_state": random_state}
    given = (*(f"{name}={value}" for name, value in drawn.items() if value is not None), *(set or ()))
    settings = Settings(method, profile, psi, head, output, input, given, engine)
    job = Job(
        model,
        inputs,
        folder,
        settings,
        preprocessing=preprocess,
        labels=labels,
        target=target,
        picture=picture,
        providers=_split(providers),
        threads=threads,
        batch_size=batch_size,
        resume=resume,
        bind=bind or (),
        sound=Sound.of(rate, channel, span),
        cache=not no_cache,
    )
    terminal.say("model", f"{model}  (sha256 {job.loaded.sha256[:12]})")
    if job.preprocessing is not None:
        terminal.say("preprocessing", f"{job.preprocessing.describe()}  (from: {job.preprocessing_origin})")
    terminal.say("explained by", ", ".join(f"{k} {v}" for k, v in settings.to_dict().items() if v is not None))
    shown: list[dict[str, Any]] = []
    seen: dict[str, None] = {}
    count = 0
    for record in _with_progress(job.run(), len(job.sources)):
        count += 1
        if len(shown) < _ROWS:
            shown.append(record)
        seen.update({f"{Path(record['input']['path']).name}: {n}": None for n in record["notes"] if n not in job.notes})
    terminal.notes(job.notes)
    terminal.notes(list(seen)[:_ROWS])
    terminal.show_explained(shown, count - len(shown), folder)


def _with_progress(records: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    """Show how far a long run is, on a terminal only."""
    console = terminal.err()
    columns = (TextColumn("explaining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = total <= _FEW or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("", total=total)
        for record in records:
            progress.advance(task)
            yield record


@app.command()
@terminal.command
def inspect(
    model: ModelPath,
    profile: Profile = "full",
    head: Head = "logits",
    output: Output = None,
    input: Input = None,
    input_shape: InputShape = None,
    layout: Layout = None,
    bind: Bind = None,
    everything: Annotated[bool, typer.Option("--all", help="Show long lists in full.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what a model is, what would be explained, which layers have a part in it, and what cannot be explained.

    **Examples**

    - `fgonnx inspect model.onnx`
    - `fgonnx inspect segmenter.onnx --input-shape 1,3,512,512 --all`
    - `fgonnx inspect model.onnx --json | jq .explanation.sites`

    Exit code: 0 also where the model cannot be explained (that is the answer), 2 where it cannot be loaded.
    """
    found = inspection.inspect(
        _load(model, bind),
        profile=profile,
        head=head,
        output=output,
        input=input,
        input_shape=_shape(input_shape),
        layout=layout,
    )
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        terminal.show_inspection(found, everything=everything)


@app.command()
@terminal.command
def check(
    model: ModelPath,
    inputs: SomeImages = None,
    target: Target = None,
    preprocess: Preprocess = None,
    labels: Labels = None,
    head: Head = "logits",
    output: Output = None,
    input: Input = None,
    input_shape: InputShape = None,
    layout: Layout = None,
    bind: Bind = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Allowed relative error of outputs and completeness. Default: 1e-4.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Random samples, where no pictures are given.")] = 2,
    directions: Annotated[int, typer.Option(min=1, help="Directions of each kind for the slopes.")] = 8,
    random_state: Annotated[int, typer.Option(min=0, help="Seed of samples and directions.")] = 0,
    engine: Annotated[
        str,
        typer.Option(
            rich_help_panel=RUNNING, help="What is checked: fgonnx, ort-training, or both and that they agree."
        ),
    ] = "fgonnx",
    providers: Providers = None,
    threads: Threads = None,
    no_cache: NoCache = False,
) -> None:
    """Check the explanation of this very model: outputs unchanged, completeness, and the gradient by differences.

    **Examples**

    - `fgonnx check model.onnx`
    - `fgonnx check model.onnx photos/ --preprocess imagenet`
    - `fgonnx check model.onnx --engine both` : every tensor against ONNX Runtime's own gradient graph

    Exit code: 0 where no check fails, 1 where one does, 2 where input or options are wrong.
    """
    loaded = _load(model, bind)
    shape = _shape(input_shape)
    x, layout = _samples(loaded, inputs or [], preprocess, input, shape, samples, random_state, layout)
    with terminal.err().status("checking"):
        result = run_checks(
            loaded,
            x,
            target,
            head=head,
            output=output,
            input=input,
            input_shape=shape,
            layout=layout,
            labels=_labels(labels),
            providers=_split(providers),
            threads=threads,
            samples=samples,
            directions=directions,
            tolerance=tolerance,
            random_state=random_state,
            engine=engine,
            cache=not no_cache,
        )
    terminal.show_check(result)
    if not result.passed:
        raise typer.Exit(1)


def _samples(
    loaded: LoadedModel,
    inputs: Sequence[Path],
    preprocess: str | None,
    input: str | None,
    shape: tuple[int, ...] | None,
    samples: int,
    random_state: int,
    layout: str | None,
) -> tuple[np.ndarray | None, str | None]:
    """Return the samples to check on (None: the engine's own random ones) and their layout; say what they are."""
    face = choose_input(loaded.ir, input, loaded.name)
    assert face.shape is not None
    sources = find(inputs, face.shape.rank()) if inputs else []
    pictures = any(is_picture(s.path) for s in sources)
    pre, origin = picture_preprocessing(loaded, preprocess, input, required=pictures)
    if pre is not None:
        terminal.say("preprocessing", f"{pre.describe()}  (from: {origin})")
        layout = layout or pre.layout
    if sources:
        reader = Reader(face, pre)
        rows = [reader.read(source).x for source in sources]
        if len({row.shape for row in rows}) > 1:
            raise OptionError("the samples have different sizes; check pictures of one size at a time")
        terminal.say("checked on", f"{len(rows)} sample(s) given")
        return np.stack(rows), layout
    if pre is not None and (pre.size is not None or shape is not None):
        terminal.say("checked on", f"{samples} random picture(s), seed {random_state}")
        return random_pictures(pre, shape, samples, random_state), layout
    terminal.say(
        "checked on", f"{samples} random array(s), seed {random_state}; the model may be made for other values"
    )
    return None, layout


app.command("compare")(terminal.command(compare.compare))
app.command("convert")(terminal.command(convert.command))
app.command("evaluate")(terminal.command(evaluate.command))


@app.command("rewrite")
@terminal.command
def rewrite_command(
    model: ModelPath,
    out: Annotated[Path, typer.Option("--output-file", "-o", metavar="OUT.onnx", help="The file to write.")],
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help=f"What to add: {', '.join(CERTIFICATE)}, input_gradient, bias_gradients, attribution, head. Default: "
            "the first five, as far as the method has them.",
        ),
    ] = None,
    expose: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="More outputs: any value's NAME, gradient:NAME, bias:SITE, bias_gradient:SITE. Repeatable.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Default of the new input target_index. Default: the largest.")
    ] = None,
    labels: Labels = None,
    seed: Annotated[
        bool, typer.Option("--seed", help="Take a cotangent of the head as an input instead of a class index.")
    ] = False,
    method: Method = "fullgrad",
    set: Set = None,
    profile: Profile = "full",
    psi: Psi = "abs",
    head: Head = "logits",
    output: Output = None,
    input: Input = None,
    input_shape: InputShape = None,
    layout: Layout = None,
    bind: Bind = None,
    form: Annotated[
        str,
        typer.Option(
            metavar="FORM",
            help="fast: as fast as it goes on ONNX Runtime. portable: plain operators for other runtimes.",
        ),
    ] = "fast",
) -> None:
    """Write a model that explains itself: the same outputs, plus the map and its certificate, in standard ONNX.

    **Examples**

    - `fgonnx rewrite model.onnx -o explained.onnx`
    - `fgonnx rewrite model.onnx -o explained.onnx --outputs saliency,score --psi positive`
    - `fgonnx rewrite detector.onnx -o explained.onnx --seed --input-shape 1,3,416,416`

    The result runs wherever ONNX runs: ONNX Runtime on CPU, CUDA, in the browser or on a phone.
    """
    if out.exists() and out.resolve() == model.resolve():
        raise OptionError(f"'{out}' is the source model; write to another file")
    if out.is_dir():
        raise OptionError(f"'{out}' is a folder; give a file name such as {out / 'explained.onnx'}")
    loaded = _load(model, bind)
    proto = rewrite(
        loaded,
        method=method,
        profile=profile,
        psi=psi,
        head=head,
        output=output,
        input=input,
        input_shape=_shape(input_shape),
        layout=layout,
        target=_target(target, labels, loaded),
        seed=seed,
        outputs=_split(outputs),
        expose=expose or (),
        form=form,
        **methods.find(method).parse(set or ()),
    )
    files = save.save(proto, out, folder=loaded.path.parent if loaded.path is not None else None)
    known = {p.key: p.value for p in proto.metadata_props}
    for file in files:
        terminal.say("written", f"{file}  ({terminal.file_size(file)})")
    terminal.say("from", f"{model}  ({terminal.file_size(model)}, sha256 {loaded.sha256[:12]})")
    stripped = known.get("fgonnx.head_stripped")
    terminal.say("explained", known["fgonnx.head_value"] + (f", before the final {stripped}" if stripped else ""))
    terminal.say("sites", f"{len(sites_of(proto))}, listed in the metadata entry fgonnx.sites")
    faces = terminal.table("", "name", "type", "shape")
    for kind, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            terminal.row(faces, kind, value.name, *_face(value))
    terminal.out().print(faces)


def _face(value: onnx.ValueInfoProto) -> tuple[str, str]:
    tensor = value.type.tensor_type
    dims = ", ".join(d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in tensor.shape.dim)
    return onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), f"[{dims}]"


def _target(text: str | None, file: Path | None, loaded: LoadedModel) -> int | None:
    """Return the index that is meant; the engine checks it against the head."""
    if text is None:
        return None
    return labels.resolve(text, _labels(file) or loaded.labels() or ())


def _load(model: Path, bind: Sequence[str] | None) -> LoadedModel:
    return binding.bind(load(model), binding.parse(bind or ()))


def _labels(file: Path | None) -> tuple[str, ...] | None:
    return labels.load(file) if file is not None else None


def _split(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",") if part.strip()] if text is not None else None


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if len(shape) < 2 or min(shape) < 1:
        raise OptionError(f"input shape '{text}' is not a list of sizes; write for example 1,3,224,224")
    return shape


def main() -> None:
    """Run the command line."""
    app(prog_name="fgonnx")


if __name__ == "__main__":
    main()
