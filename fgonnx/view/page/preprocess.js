// From the pixels of a picture to the numbers of the model's input, as fgonnx.Preprocessing does in Python.

import { resize, rint } from "./resize.js";

const COUNT = { RGB: 3, BGR: 3, GRAY: 1, RGBA: 4, BGRA: 4 };
const ORDER = { RGB: [0, 1, 2], BGR: [2, 1, 0], RGBA: [0, 1, 2, 3], BGRA: [2, 1, 0, 3] };

/**
 * Turn a picture into the model's input.
 *
 * @param {Uint8Array|Uint8ClampedArray} rgba pixels (height, width, 4), alpha not multiplied into the colours
 * @param {[number, number]} size height and width of the picture
 * @param {object} how fields of fgonnx.Preprocessing, complete
 * @returns {{data: TypedArray, dims: number[], seen: Uint8Array, size: [number, number], frame: number[]}}
 *   the input with a batch of one; what the model sees as RGB (h, w, 3), where its edges are in the picture
 */
export function prepare(rgba, size, how) {
  const wanted = how.channels === "RGBA" || how.channels === "BGRA" ? 4 : 3;
  const place = placed(how, size);
  const pixels = framed(wanted === 4 ? rgba : overWhite(rgba), size, wanted, how, place);
  const [h, w] = place.size;
  const levels = how.channels === "GRAY" ? grey(pixels) : reordered(pixels, wanted, ORDER[how.channels]);
  const data = normalised(levels, COUNT[how.channels], how);
  const axes = { NCHW: [COUNT[how.channels], h, w], NHWC: [h, w, COUNT[how.channels]], NHW: [h, w] }[how.layout];
  return {
    data: how.layout === "NCHW" ? channelsFirst(data, COUNT[how.channels]) : data,
    dims: [1, ...axes],
    seen: shown(pixels, wanted, levels, how),
    size: place.size,
    frame: edges(place, size),
  };
}

/** Where the picture comes to lie: its size when scaled, and per axis what of it goes where on the canvas. */
export function placed(how, [height, width]) {
  const size = how.size ?? [height, width];
  let scaled = size;
  if (how.size && how.resize !== "stretch") {
    const cover = covering(how);
    if (how.resize === "letterbox") {
      const factor = Math.min(size[0] / height, size[1] / width);
      scaled = [height, width].map((side) => Math.max(1, rint(side * factor)));
    } else if (cover[0] * width >= cover[1] * height) {
      scaled = [cover[0], Math.floor((cover[0] * width) / height)];
    } else {
      scaled = [Math.floor((cover[1] * height) / width), cover[1]];
    }
  }
  const overlap = (mine, other) =>
    mine.map((side, i) => ({ start: Math.max(0, rint((side - other[i]) / 2)), length: Math.min(side, other[i]) }));
  return { size, scaled, source: overlap(scaled, size), target: overlap(size, scaled) };
}

function covering(how) {
  if (how.resize_to != null) return how.size.map((side) => Math.max(how.resize_to, side));
  return how.size.map((side) => rint((side * 256) / 224));
}

function edges(place, [height, width]) {
  const ends = [height, width].map((whole, axis) => {
    const first = place.source[axis].start - place.target[axis].start;
    const unit = whole / place.scaled[axis];
    return [first * unit, (first + place.size[axis]) * unit];
  });
  return [ends[1][0], ends[0][0], ends[1][1], ends[0][1]];
}

function framed(pixels, size, channels, how, place) {
  const scaled = resize(pixels, size, channels, place.scaled, how.interpolation ?? "auto");
  const [h, w] = place.size;
  const out = new Uint8Array(h * w * channels).fill(how.fill ?? 114);
  if (channels === 4) for (let i = 3; i < out.length; i += 4) out[i] = 255;
  const [rows, columns] = place.source;
  for (let y = 0; y < rows.length; y++) {
    const from = ((rows.start + y) * place.scaled[1] + columns.start) * channels;
    const to = ((place.target[0].start + y) * w + place.target[1].start) * channels;
    out.set(scaled.subarray(from, from + columns.length * channels), to);
  }
  return out;
}

/** Blend (n, 4) over white: (n, 3). */
export function overWhite(rgba) {
  const out = new Uint8Array((rgba.length / 4) * 3);
  for (let i = 0, o = 0; i < rgba.length; i += 4, o += 3) {
    if (rgba[i + 3] === 255) {
      out[o] = rgba[i];
      out[o + 1] = rgba[i + 1];
      out[o + 2] = rgba[i + 2];
      continue;
    }
    const alpha = Math.fround(rgba[i + 3] / 255);
    const white = Math.fround(255 * Math.fround(1 - alpha));
    for (let c = 0; c < 3; c++) out[o + c] = rint(Math.fround(Math.fround(rgba[i + c] * alpha) + white));
  }
  return out;
}

/** Luminance of (n, 3), in OpenCV's fixed-point weights. */
function grey(rgb) {
  const out = new Uint8Array(rgb.length / 3);
  for (let i = 0; i < out.length; i++) {
    out[i] = (rgb[3 * i] * 9798 + rgb[3 * i + 1] * 19235 + rgb[3 * i + 2] * 3735 + 16384) >> 15;
  }
  return out;
}

function reordered(pixels, channels, order) {
  if (order.every((from, i) => from === i)) return pixels;
  const out = new Uint8Array(pixels.length);
  for (let i = 0; i < pixels.length; i += channels)
    for (let c = 0; c < channels; c++) out[i + c] = pixels[i + order[c]];
  return out;
}

function normalised(levels, channels, how) {
  if (how.dtype === "uint8") return levels;
  const each = (values) => Array.from({ length: channels }, (_, c) => Math.fround(values[values.length === 1 ? 0 : c]));
  const [scale, mean, std] = [Math.fround(how.scale ?? 1), each(how.mean ?? [0]), each(how.std ?? [1])];
  const out = new Float32Array(levels.length);
  for (let i = 0; i < levels.length; i++) {
    const c = i % channels;
    out[i] = Math.fround(Math.fround(levels[i] * scale) - mean[c]) / std[c];
  }
  return how.dtype === "float16" ? Uint16Array.from(out, half) : out;
}

function channelsFirst(data, channels) {
  if (channels === 1) return data;
  const cells = data.length / channels;
  const out = new data.constructor(data.length);
  for (let c = 0; c < channels; c++) for (let i = 0; i < cells; i++) out[c * cells + i] = data[i * channels + c];
  return out;
}

/** What the model sees, as RGB: grey if it takes grey, over white. */
function shown(pixels, channels, levels, how) {
  if (how.channels === "GRAY") {
    const out = new Uint8Array(levels.length * 3);
    for (let i = 0; i < levels.length; i++) out.fill(levels[i], 3 * i, 3 * i + 3);
    return out;
  }
  return channels === 4 ? overWhite(pixels) : pixels;
}

const bits = new DataView(new ArrayBuffer(4));

/** The bits of a number as float16, rounded to the nearest, halves to the even one. */
export function half(x) {
  bits.setFloat32(0, x);
  const sign = (bits.getUint32(0) >>> 16) & 0x8000;
  const size = Math.abs(x);
  if (Number.isNaN(x)) return sign | 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  if (size < 2 ** -14) return sign | rint(size * 2 ** 24);
  const exponent = Math.floor(Math.log2(size));
  const power = size < 2 ** exponent ? exponent - 1 : size >= 2 ** (exponent + 1) ? exponent + 1 : exponent;
  return sign | (((power + 15) << 10) + rint((size / 2 ** power - 1) * 1024));
}

/** The number that the bits of a float16 stand for. */
export function unhalf(h) {
  const sign = h & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(h >> 10) & 31, h & 1023];
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
