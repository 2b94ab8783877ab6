// ONNX Runtime with one file of weights for several graphs, in a worker or in the page.

const WEIGHTS = "weights.bin";

export class Engine {
  /** Load the runtime: `module` and `wasm` are addresses, `binary` the bytes of the latter if it is not fetched. */
  async open({ module, wasm, binary, threads, provider, weights }) {
    this.ort = await import(module);
    this.provider = provider;
    this.weights = weights;
    this.sessions = new Map();
    this.ort.env.wasm.numThreads = threads;
    this.ort.env.logLevel = "error";
    if (binary) this.ort.env.wasm.wasmBinary = binary;
    else this.ort.env.wasm.wasmPaths = { wasm };
    return { version: this.ort.env.versions.web ?? this.ort.env.versions.common };
  }

  /** Open a graph under a name. */
  async load({ name, graph }) {
    if (this.sessions.has(name)) return;
    const external = this.weights?.length ? { externalData: [{ path: WEIGHTS, data: this.weights }] } : {};
    const options = { executionProviders: [this.provider], logSeverityLevel: 3, ...external };
    this.sessions.set(name, await this.ort.InferenceSession.create(graph, options));
  }

  /** Run a graph: inputs are {type, data, dims} by name; returns the outputs asked for in that form, and the time. */
  async run({ name, inputs, outputs }) {
    const session = this.sessions.get(name);
    const feeds = {};
    for (const [key, { type, data, dims }] of Object.entries(inputs))
      feeds[key] = new this.ort.Tensor(type, data, dims);
    const begun = performance.now();
    const results = await session.run(feeds, outputs);
    const found = {};
    for (const key of outputs) {
      const tensor = results[key];
      found[key] = { type: tensor.type, data: (await tensor.getData()).slice(), dims: tensor.dims.map(Number) };
      tensor.dispose();
    }
    return { outputs: found, ms: performance.now() - begun };
  }
}
