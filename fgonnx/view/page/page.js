// The page: what is shown, and what happens when something is chosen.

import { Certificate } from "./certificate.js";
import { Classes } from "./classes.js";
import { decode, exact, pixelsOf } from "./decode.js";
import { nameOf } from "./decision.js";
import { difference, explain, FAR, predict, prepared } from "./explain.js";
import { bytesOf, jsonOf } from "./files.js";
import { recordOf, save } from "./record.js";
import { Sessions } from "./session.js";
import { Camera, gallery, listen } from "./sources.js";
import { Stage } from "./stage.js";
import { element, milliseconds, visible } from "./words.js";

const $ = (id) => document.getElementById(id);
const PROVIDERS = { wasm: "WebAssembly", webgpu: "WebGPU" };
const MEANING = {
  abs: "The brighter, the more this place matters for the score, whichever way.",
  positive: "The brighter, the more this place speaks for the class.",
  signed: "Red speaks for the class, blue against it.",
};
const WORDS = {
  abs: "what matters",
  positive: "what speaks for it",
  signed: "for and against",
  full: "all layers",
  reference: "biases of convolutions",
  paper: "one term per block",
};

class Page {
  async start() {
    if (!exact())
      throw new Error(
        "this browser changes the pixels that a page reads (against fingerprinting), and would explain another " +
          "picture: allow it to read canvases here.",
      );
    this.model = await jsonOf("data/model.json");
    this.head = this.model.head;
    this.grey = this.model.preprocessing.channels === "GRAY";
    const title = visible(this.model.name);
    document.title = `${title} – fgonnx view`;
    $("title").textContent = title;
    $("about").textContent = visible(this.model.about);
    this.weights = this.model.weights ? await this.fetch(this.model.weights, "the weights") : new Uint8Array();
    this.sessions = await this.open("wasm");
    this.choose(this.model.maps[0]);
    this.wire();
    this.chips();
    this.details();
    $("loading").hidden = true;
    $("main").hidden = false;
    document.documentElement.dataset.loaded = String(performance.now());
    const [first] = this.model.samples;
    if (first) $("gallery").querySelector("button").click();
    else document.documentElement.dataset.ready = "0";
  }

  fetch(file, what) {
    $("loading-text").textContent = `Loading ${what} …`;
    return bytesOf(file, (count, total) => {
      if (total) $("progress").value = count / total;
    });
  }

  open(provider) {
    $("loading-text").textContent = `Loading ONNX Runtime …`;
    return new Sessions(provider).open(this.weights, (count, total) => {
      if (total) $("progress").value = count / total;
    });
  }

  wire() {
    const { colours } = this.model;
    const tables = Object.fromEntries(
      Object.entries(colours).map(([name, text]) => [name, Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]),
    );
    this.stage = new Stage(
      { canvas: $("stage"), scale: $("scale"), low: $("low"), high: $("high"), probe: $("probe") },
      tables,
    );
    const ids = ["sum", "network", "strip", "grids", "layer", "bars", "all"];
    this.certificate = new Certificate(Object.fromEntries(ids.map((id) => [id, $(id)])), tables.signed);
    const boxes = { list: $("classes"), other: $("other"), field: $("other-field"), options: $("labels") };
    this.classes = new Classes(boxes, this.head, (index) => this.again({ target: index }));
    const take = (blob, name) => this.take(blob, name);
    listen({ open: $("open"), file: $("file"), paste: $("paste"), drop: $("drop") }, take, (text) => this.refuse(text));
    this.mark = gallery($("gallery"), this.model.samples, take);
    this.camera = new Camera(
      $("camera"),
      $("video"),
      (video) => this.frame(video),
      (text) => this.refuse(text),
    );
    $("colours").replaceChildren(
      ...Object.keys(tables)
        .filter((n) => n !== "signed")
        .map((n) => element("option", {}, n)),
    );
    $("views").addEventListener("change", (event) => this.stage.change({ view: event.target.value }));
    $("opacity").addEventListener("input", (event) => this.stage.change({ opacity: event.target.value / 100 }));
    $("colours").addEventListener("change", (event) => this.stage.change({ table: event.target.value }));
    $("seen").addEventListener("change", (event) => this.stage.change({ seen: event.target.checked }));
    for (const id of ["method", "psi", "profile"]) $(id).addEventListener("change", () => this.pick());
    $("provider").addEventListener("change", (event) => this.run(event.target.value));
    $("png").addEventListener("click", () => this.savePicture());
    $("json").addEventListener("click", () => this.record());
    if (this.model.webgpu && navigator.gpu) {
      $("provider").replaceChildren(
        ...Object.entries(PROVIDERS).map(([value, name]) => element("option", { value }, name)),
      );
      $("provider-field").hidden = false;
    }
  }

  /** Make a map the current one, and the boxes say which there are. */
  choose(choice) {
    this.choice = choice;
    const { maps } = this.model;
    const boxes = {
      method: maps,
      psi: maps.filter((m) => m.method === choice.method),
      profile: maps.filter((m) => m.method === choice.method && m.psi === choice.psi),
    };
    for (const [id, possible] of Object.entries(boxes)) {
      const values = [...new Set(possible.map((m) => m[id]))];
      $(id).replaceChildren(
        ...values.map((value) => element("option", { value, selected: value === choice[id] }, WORDS[value] ?? value)),
      );
      $(id).disabled = values.length < 2;
    }
    $("meaning").textContent = MEANING[choice.psi] ?? "";
  }

  pick() {
    const [method, psi, profile] = ["method", "psi", "profile"].map((id) => $(id).value);
    const { maps } = this.model;
    const wanted = [
      (m) => m.method === method && m.psi === psi && m.profile === profile,
      (m) => m.method === method && m.psi === psi,
      (m) => m.method === method,
    ];
    this.choose(wanted.map((test) => maps.find(test)).find(Boolean));
    this.again({});
  }

  async take(blob, name) {
    this.camera.stop();
    await this.work(async () => {
      const begun = performance.now();
      const picture = await decode(blob, name);
      this.target = null;
      this.mark(name);
      await this.replaced(picture, begun);
    });
  }

  async frame(video) {
    await this.work(async () => {
      const begun = performance.now();
      const pixels = pixelsOf(video);
      const bitmap = await createImageBitmap(video);
      const bytes = new Uint8Array(pixels.rgba.buffer);
      this.mark(null);
      await this.replaced({ ...pixels, bitmap, bytes, notes: ["a frame of a camera"], name: "camera" }, begun);
    });
  }

  /** Explain another picture; the one before is drawn until then, and its memory is given back afterwards. */
  async replaced(picture, begun) {
    const before = this.picture;
    this.picture = picture;
    this.decoding = performance.now() - begun;
    try {
      await this.explained();
    } catch (error) {
      this.refuse(error.message);
      this.blank();
    }
    before?.bitmap.close();
    $("notes").textContent = `The picture: ${picture.notes.join("; ")}.`;
    $("notes").hidden = picture.notes.length === 0;
  }

  again(changed) {
    if (!this.picture) return;
    Object.assign(this, changed);
    this.work(() => this.explained(true));
  }

  /** One thing after the other; of several that wait, the last one counts. */
  async work(task) {
    this.next = task;
    if (this.working) return this.working;
    $("busy").hidden = false;
    this.working = (async () => {
      while (this.next) {
        const now = this.next;
        this.next = null;
        $("error").hidden = true;
        try {
          await now();
        } catch (error) {
          this.refuse(error.message);
          if (!this.fresh) this.blank();
        }
      }
    })();
    await this.working;
    this.working = null;
    $("busy").hidden = true;
    document.documentElement.dataset.ready = String(Number(document.documentElement.dataset.ready ?? 0) + 1);
  }

  async explained(known = false) {
    const times = { Decode: this.decoding };
    let begun = performance.now();
    this.fresh = false;
    this.prepared = null;
    this.prepared = prepared(this.picture, this.model);
    times.Prepare = performance.now() - begun;
    if (!known) this.prediction = null;
    this.prediction ??= await predict(this.sessions, this.model, this.prepared.data);
    times.Predict = this.prediction.ms;
    const { decision } = this.prediction;
    const target = this.target ?? decision.own;
    this.classes.show(this.listed(target), target);
    this.result = await explain(this.sessions, this.model, this.choice, this.prepared.data, target);
    times.Explain = this.result.ms;
    begun = performance.now();
    this.draw(target);
    times.Draw = performance.now() - begun;
    this.times(times);
    this.fresh = true;
  }

  /** Take away what is of another picture or map than the one that could not be explained. */
  blank() {
    this.result = null;
    $("sum").textContent = "";
    $("network").hidden = true;
    $("times").replaceChildren();
    const { bitmap } = this.picture ?? {};
    if (this.prepared) this.stage.show({ bitmap, prepared: this.prepared, map: null, signed: false, grey: this.grey });
    else this.stage.clear();
    if (!this.prediction || !this.prepared) this.classes.show([], null);
  }

  /** The largest entries, and the one that was asked for where it is none of them. */
  listed(target) {
    const { decision, entry } = this.prediction;
    const inside = decision.entries.some((e) => e.index === target);
    return inside ? decision.entries : [...decision.entries, entry(target)];
  }

  draw(target) {
    const { map, certificate } = this.result;
    const name = visible(nameOf(this.prediction.entry(target), this.head));
    const { bitmap } = this.picture;
    this.stage.show({ bitmap, prepared: this.prepared, map, signed: this.choice.signed, grey: this.grey });
    $("stage").setAttribute("aria-label", `${visible(this.picture.name)}, with the map of ${name} over it`);
    this.certificate.show(certificate, this.choice.sites, this.choice.method);
    if (!this.camera.stream) $("live").textContent = `Explained: ${name}, score ${this.result.score.toPrecision(3)}`;
  }

  times(times) {
    const rows = Object.entries(times).map(([name, ms]) => [name, milliseconds(ms)]);
    // The first run of a graph finds its kernels and its memory: no ratio is shown of it.
    const ratio = this.prediction.first || this.result.first ? "first run" : (times.Explain / times.Predict).toFixed(1);
    rows.push(["Explain / predict", ratio]);
    $("times").replaceChildren(
      ...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
    );
  }

  /** Run in another way, after its first result is held against that of WebAssembly. */
  async run(provider) {
    await this.work(async () => {
      const before = this.sessions;
      const tried = await this.open(provider);
      try {
        if (provider !== "wasm" && this.result) {
          const found = await explain(
            tried,
            this.model,
            this.choice,
            this.prepared.data,
            this.target ?? this.prediction.decision.own,
          );
          const far = difference(found, this.result);
          if (!(far <= FAR))
            throw new Error(
              `${PROVIDERS[provider]} computes another map here (${far.toPrecision(2)} of the maximum apart): ` +
                "WebAssembly is kept.",
            );
        }
      } catch (error) {
        tried.close();
        $("provider").value = before.provider;
        throw error;
      }
      this.sessions = tried;
      before.close();
      this.chips();
      if (this.picture) await this.explained();
    });
  }

  chips() {
    const { provider, threads } = this.sessions;
    const words = ["On this machine only", PROVIDERS[provider], `${threads} thread${threads > 1 ? "s" : ""}`];
    $("chips").replaceChildren(...words.map((text) => element("li", {}, text)));
  }

  details() {
    const { model } = this;
    const { version, threads } = this.sessions;
    const slow = globalThis.crossOriginIsolated
      ? ""
      : "; more where the server isolates the page, as fgonnx view --serve does";
    const rows = {
      Model: `${model.model.path}, sha256 ${model.model.sha256.slice(0, 12)}`,
      Preprocessing: model.described,
      Explained: `${model.head.value}${model.head.before ? `, before the final ${model.head.before}` : ""}`,
      "Written by": `fgonnx ${model.versions.fgonnx}`,
      Runtime: `onnxruntime-web ${version ?? model.runtime.version}, ${threads} thread(s)${slow}`,
    };
    const cells = Object.entries(rows).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
    $("details").replaceChildren(element("dl", {}, ...cells));
  }

  async record() {
    if (!this.result) return;
    const { model, prepared: input, choice, result, sessions } = this;
    const { decision, entry } = this.prediction;
    const target = entry(this.target ?? decision.own);
    const made = await recordOf({
      model,
      picture: this.picture,
      prepared: input,
      decision,
      target,
      choice,
      result,
      runtime: sessions,
      view: this.stage.how.view,
    });
    save(new Blob([`${JSON.stringify(made, null, 2)}\n`], { type: "application/json" }), `${this.stem()}.json`);
  }

  savePicture() {
    if (this.result) $("stage").toBlob((blob) => save(blob, `${this.stem()}.png`), "image/png");
  }

  stem() {
    return this.picture.name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N} _.-]/gu, "_") || "explained";
  }

  refuse(text) {
    $("error").textContent = visible(text);
    $("error").hidden = false;
  }
}

const page = new Page();
globalThis.fgonnxPage = page; // for programs that drive the page
page.start().catch((error) => {
  $("loading").hidden = true;
  page.refuse(`The page cannot start: ${error.message}`);
});
