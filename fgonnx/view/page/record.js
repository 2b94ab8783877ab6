// What is saved: the record of an explanation as JSON, in the form of fgonnx's own, and a picture.

import { sha256 } from "./decode.js";

/** Return the record, whose form is fgonnx/jobs/record.schema.json. */
export async function recordOf({ model, picture, prepared, decision, target, choice, result, runtime, view }) {
  const hash = async (data) => (await sha256(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))) ?? "";
  const asked = {
    input: { path: picture.name, row: null, sha256: await sha256(picture.bytes) },
    model: model.model,
    settings: { ...choice.settings, target: target.index, picture: view },
    preprocessing: model.preprocessing,
  };
  const { certificate, map } = result;
  const total = certificate ? certificate.contributions.reduce((a, b) => a + Math.abs(b), 0) || 1 : 1;
  const inMap = (values) => values.filter((_, i) => choice.sites[i].in_map);
  return {
    schema: 2,
    id: await hash(new TextEncoder().encode(JSON.stringify(asked))),
    time: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
    ...asked,
    versions: model.versions,
    providers: [runtime.provider],
    environment: {
      os: navigator.userAgent,
      python: "none: in a browser",
      processor: null,
      features: globalThis.crossOriginIsolated ? ["cross-origin isolated"] : [],
      runtime_build: `onnxruntime-web ${runtime.version}`,
      device: runtime.provider === "webgpu" ? "GPU" : "CPU",
      threads: runtime.threads,
      tf32: null,
    },
    runtime: { name: "onnxruntime-web", version: runtime.version, providers: [runtime.provider] },
    tensor: { sha256: await hash(prepared.data), shape: prepared.dims.slice(1), dtype: model.input.dtype },
    notes: [...picture.notes, ...choice.notes],
    chosen: [],
    explained: {
      value: model.head.value,
      before: model.head.before,
      described: `${target.index} ${target.label ?? ""}`.trim(),
    },
    top5: decision.entries.map(entry),
    target: entry(target),
    score: result.score,
    completeness: certificate && {
      residual: certificate.residual,
      relative: result.score ? Math.abs(certificate.residual / result.score) : null,
      rounding: Math.abs(certificate.residual) / total,
    },
    delta: null,
    localised: certificate && {
      amount: inMap(Array.from(certificate.contributions)).reduce((a, b) => a + b, 0),
      share: inMap(Array.from(certificate.contributions)).reduce((a, b) => a + Math.abs(b), 0) / total,
    },
    sites: choice.sites.map((site, i) => ({
      ...site,
      contribution: certificate ? certificate.contributions[i] : null,
      share: certificate ? Math.abs(certificate.contributions[i]) / total : null,
    })),
    map: {
      sha256: await hash(map),
      shape: result.size,
      dtype: "float32",
      min: map.reduce((a, b) => Math.min(a, b), Infinity),
      max: map.reduce((a, b) => Math.max(a, b), -Infinity),
      picture: picture.size,
      frame: prepared.frame,
    },
    files: { picture: null, map: null },
  };
}

function entry({ index, position, label, score, probability }) {
  return { index, position, label, score, probability };
}

/** Hand a file to the browser's downloads. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
