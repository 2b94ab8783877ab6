// The page's side of the engine: in a worker, so that the page answers while a model runs.

import { Engine } from "./engine.js";
import { addressOf, bytesOf, single } from "./files.js";

const ENTRIES = {
  wasm: ["ort/ort.wasm.bundle.min.mjs", "ort/ort-wasm-simd-threaded.wasm"],
  webgpu: ["ort/ort.webgpu.bundle.min.mjs", "ort/ort-wasm-simd-threaded.asyncify.wasm"],
};
const MOST_THREADS = 4;

/** How many threads a model runs on: one, unless the page is isolated from other origins; `?threads=2` asks for two. */
export function threadsOf(provider) {
  if (provider !== "wasm" || !globalThis.crossOriginIsolated || single) return 1;
  const asked = Number(new URLSearchParams(location.search).get("threads")) || MOST_THREADS;
  return Math.max(1, Math.min(Math.round(asked), navigator.hardwareConcurrency || 1));
}

export class Sessions {
  constructor(provider) {
    this.provider = provider;
    this.threads = threadsOf(provider);
    this.loaded = new Map();
    this.waiting = new Map();
    this.count = 0;
  }

  async open(weights, progress) {
    const [module, wasm] = ENTRIES[this.provider];
    const given = { module: addressOf(module, "text/javascript"), provider: this.provider, threads: this.threads };
    given.binary = await bytesOf(wasm, progress);
    given.weights = weights.slice(); // each engine keeps its own
    if (single) this.engine = new Engine();
    else this.start();
    const { version } = await this.call("open", given, [given.binary.buffer, given.weights.buffer]);
    this.version = version;
    return this;
  }

  start() {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.worker.addEventListener("message", ({ data: { id, found, error } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error === undefined) resolve(found);
      else reject(new Error(error));
    });
    this.worker.addEventListener("error", (event) => {
      for (const { reject } of this.waiting.values()) reject(new Error(event.message || "the worker does not start"));
      this.waiting.clear();
    });
  }

  call(call, given, transfer = []) {
    if (this.engine) return this.engine[call](given);
    return new Promise((resolve, reject) => {
      const id = this.count++;
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, call, given }, transfer);
    });
  }

  /** Run a graph of the page, which is opened where it is not yet; the first run of a graph takes longer. */
  async run(file, inputs, outputs) {
    const first = !this.loaded.has(file);
    if (first) {
      this.loaded.set(
        file,
        bytesOf(file).then((graph) => this.call("load", { name: file, graph }, [graph.buffer])),
      );
    }
    try {
      await this.loaded.get(file);
    } catch (error) {
      this.loaded.delete(file);
      throw error;
    }
    return { ...(await this.call("run", { name: file, inputs, outputs })), first };
  }

  close() {
    this.worker?.terminate();
  }
}
