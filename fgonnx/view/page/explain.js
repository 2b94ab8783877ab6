// One explanation: the picture prepared, the model run, then the graph that explains it.

import { decide, entryOf } from "./decision.js";
import { prepare, unhalf } from "./preprocess.js";

/** The numbers of an output, whatever their type. */
export function numbers({ type, data }) {
  if (type === "float16" && data instanceof Uint16Array) return Float32Array.from(data, unhalf);
  return data instanceof Float32Array ? data : Float32Array.from(data, Number);
}

/** Prepare a picture as the model's input. */
export function prepared(picture, model) {
  const how = model.preprocessing;
  const takesAlpha = how.channels === "RGBA" || how.channels === "BGRA";
  if (takesAlpha && !picture.opaque) {
    throw new Error(
      "The model reads transparency, and browsers round the colours under it: explain this picture with fgonnx itself.",
    );
  }
  const found = prepare(picture.rgba, picture.size, how);
  const count = model.input.dims.reduce((a, b) => a * b, 1);
  if (found.data.length !== count)
    throw new Error(`The model takes ${count} numbers, and this picture becomes ${found.data.length}.`);
  return found;
}

function inputOf(model, data) {
  return { [model.input.name]: { type: model.input.dtype, data, dims: model.input.dims } };
}

/** Run the model: its decision, and the time that took. */
export async function predict(sessions, model, data) {
  const { file, scores, probabilities, exponential } = model.predict;
  const wanted = [scores, ...(probabilities ? [probabilities] : [])];
  const { outputs, ms, first } = await sessions.run(file, inputOf(model, data), wanted);
  let shares = probabilities ? numbers(outputs[probabilities]) : null;
  if (shares && exponential) shares = shares.map(Math.exp);
  const all = numbers(outputs[scores]);
  if (all.some((x) => !Number.isFinite(x))) throw new Error("The model gives NaN or infinity for this picture.");
  const decision = decide(all, shares, model.head);
  return {
    decision,
    ms,
    first,
    entry: (index) => decision.entries.find((e) => e.index === index) ?? entryOf(index, all, shares, model.head),
  };
}

/** Run a graph that explains one entry: the map, the score, the certificate where the method has one. */
export async function explain(sessions, model, choice, data, index) {
  const inputs = {
    ...inputOf(model, data),
    [choice.selector]: { type: "int64", data: BigInt64Array.of(BigInt(index)), dims: [1] },
  };
  const { saliency, score, completeness, contributions } = choice.outputs;
  const { outputs, ms, first } = await sessions.run(
    choice.file,
    inputs,
    [saliency, score, completeness, contributions].filter(Boolean),
  );
  const map = numbers(outputs[saliency]);
  if (map.some((x) => !Number.isFinite(x))) throw new Error("The map holds NaN or infinity.");
  return {
    ms,
    first,
    map,
    size: outputs[saliency].dims.slice(-2),
    score: numbers(outputs[score])[0],
    certificate: contributions
      ? {
          contributions: numbers(outputs[contributions]),
          score: numbers(outputs[score])[0],
          residual: numbers(outputs[completeness])[0],
        }
      : null,
  };
}

const FAR = 1e-2; // of the maximum: beyond it, a map is another one and not a rounded one

/** Hold a result against another one of the same input: the largest difference, relative to the maximum. */
export function difference(found, expected) {
  const most = expected.map.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
  return found.map.reduce((a, b, i) => Math.max(a, Math.abs(b - expected.map[i])), 0) / most;
}

export { FAR };
