// Resizing of 8-bit pictures, after OpenCV's definitions: the same weights, the same rounding.

const STEPS = 2048; // of a weight, in the fixed-point arithmetic of 8-bit pictures
const TINY = 1e-6;

/** Round to the nearest integer, halves to the even one, as numpy and Python do. */
export function rint(x) {
  const down = Math.floor(x);
  const part = x - down;
  if (part !== 0.5) return part < 0.5 ? down : down + 1;
  return down % 2 === 0 ? down : down + 1;
}

/** Resize pixels (height, width, channels), 0 to 255, to (h, w, channels). */
export function resize(pixels, [height, width], channels, [h, w], name) {
  if (h === height && w === width) return pixels;
  const from = [height, width];
  const to = [h, w];
  let how = name;
  if (how === "auto") how = h * w < height * width ? "area" : "linear";
  if (how === "nearest") return nearest(pixels, from, channels, to);
  if (how === "area" && h <= height && w <= width) {
    const whole = height % h === 0 && width % w === 0;
    return (whole ? blocks : area)(pixels, from, channels, to);
  }
  const along = how === "area" ? bounded : TAPS[how];
  return separable(pixels, from, channels, to, along);
}

function nearest(pixels, [height, width], channels, [h, w]) {
  const [rows, columns] = [centres(height, h), centres(width, w)];
  const out = new Uint8Array(h * w * channels);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      for (let c = 0; c < channels; c++) {
        out[(y * w + x) * channels + c] = pixels[(rows[y] * width + columns[x]) * channels + c];
      }
    }
  }
  return out;
}

/** Pixels at the centres of the new ones, as Pillow finds them: by steps, whose rounding decides where two are as near. */
function centres(size, count) {
  const step = size / count;
  const found = [];
  for (let at = step * 0.5; found.length < count; at += step) found.push(Math.min(Math.floor(at), size - 1));
  return found;
}

/** Means of whole blocks. Blocks of 2 by 2 round halves up, others to the even number. */
function blocks(pixels, [height, width], channels, [h, w]) {
  const [high, wide] = [height / h, width / w];
  const out = new Uint8Array(h * w * channels);
  const part = Math.fround(1 / (high * wide));
  const four = high === 2 && wide === 2;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let i = 0; i < high; i++) {
          const start = ((y * high + i) * width + x * wide) * channels + c;
          for (let j = 0; j < wide; j++) sum += pixels[start + j * channels];
        }
        out[(y * w + x) * channels + c] = four ? (sum + 2) >> 2 : rint(Math.fround(sum * part));
      }
    }
  }
  return out;
}

/** The cells of the source that each cell of the target covers, and the part of the target cell that each fills. */
function covered(size, target) {
  const scale = size / target;
  const found = { to: [], from: [], part: [] };
  const add = (to, from, part) => {
    found.to.push(to);
    found.from.push(from);
    found.part.push(part);
  };
  for (let i = 0; i < target; i++) {
    const [begin, end] = [i * scale, (i + 1) * scale];
    const cell = Math.min(scale, size - begin);
    const first = Math.min(Math.ceil(begin), size - 1);
    const last = Math.max(first, Math.min(Math.floor(end), size - 1));
    if (first - begin > 1e-3) add(i, first - 1, (first - begin) / cell);
    for (let j = first; j < last; j++) add(i, j, 1 / cell);
    if (end - last > 1e-3) add(i, last, Math.min(end - last, 1, cell) / cell);
  }
  return { to: Int32Array.from(found.to), from: Int32Array.from(found.from), part: Float32Array.from(found.part) };
}

/** Means over areas, summed up in single precision. */
function area(pixels, [height, width], channels, [h, w]) {
  const out = new Uint8Array(h * w * channels);
  const [down, across] = [covered(height, h), covered(width, w)];
  const line = new Float32Array(w * channels);
  const sum = new Float32Array(w * channels);
  const write = (y) => {
    for (let i = 0; i < sum.length; i++) out[y * sum.length + i] = Math.min(255, rint(sum[i]));
  };
  for (let r = 0; r < down.to.length; r++) {
    line.fill(0);
    const start = down.from[r] * width;
    for (let k = 0; k < across.to.length; k++) {
      const part = across.part[k];
      const i = across.to[k] * channels;
      const p = (start + across.from[k]) * channels;
      for (let c = 0; c < channels; c++) line[i + c] += Math.fround(pixels[p + c] * part);
    }
    if (r > 0 && down.to[r] !== down.to[r - 1]) {
      write(down.to[r - 1]);
      sum.fill(0);
    }
    const part = down.part[r];
    for (let i = 0; i < sum.length; i++) sum[i] += Math.fround(part * line[i]);
  }
  write(h - 1);
  return out;
}

/** First cell and weights of every target cell, where both neighbours of it are weighed by their distance. */
function linear(size, target) {
  return taps(size, target, (part) => [1 - part, part], 0);
}

/** The same for areas where one side grows and the other shrinks: no cell is blurred beyond its own size. */
function bounded(size, target) {
  const scale = size / target;
  return Array.from({ length: target }, (_, i) => {
    const first = Math.floor(i * scale);
    const part = Math.fround(i + 1 - (first + 1) / scale);
    const inside = part <= 0 ? 0 : part - Math.floor(part);
    return first < size - 1 ? [first, [1 - inside, inside]] : [size - 1, [1, 0]];
  });
}

function cubic(size, target) {
  const a = -0.75;
  return taps(
    size,
    target,
    (part) => {
      const far = part + 1;
      const rest = 1 - part;
      const found = [
        ((a * far - 5 * a) * far + 8 * a) * far - 4 * a,
        ((a + 2) * part - (a + 3)) * part * part + 1,
        ((a + 2) * rest - (a + 3)) * rest * rest + 1,
      ];
      return [...found, 1 - found[0] - found[1] - found[2]];
    },
    1,
  );
}

function lanczos(size, target) {
  return taps(
    size,
    target,
    (part) => {
      const found = Array.from({ length: 8 }, (_, i) => {
        const t = (part + 3 - i) * Math.PI;
        return Math.abs(t) < TINY ? 1 : (4 * Math.sin(t) * Math.sin(t / 4)) / (t * t);
      });
      const sum = found.reduce((x, y) => x + y, 0);
      return found.map((x) => x / sum);
    },
    3,
  );
}

/** First cell and weights of every target cell, where centres lie on centres. */
function taps(size, target, weigh, before) {
  const scale = size / target;
  return Array.from({ length: target }, (_, i) => {
    const at = Math.fround((i + 0.5) * scale - 0.5);
    const first = Math.floor(at);
    const part = Math.fround(at - first);
    return [first - before, weigh(part)];
  });
}

const TAPS = { linear, cubic, lanczos };

/** Along rows, a cell beyond the border takes the border's value undivided; along columns, both its halves are cut. */
function settle(tap, size) {
  if (tap[0] >= 0 && tap[0] < size - 1) return;
  [tap[0], tap[1]] = [tap[0] < 0 ? 0 : size - 1, [STEPS, 0]];
}

/** Rows first, then columns, with weights in steps of 1/2048; cells beyond the border repeat it. */
function separable(pixels, [height, width], channels, [h, w], along) {
  const fixed = (list) => list.map(([first, weights]) => [first, weights.map((x) => rint(Math.fround(x) * STEPS))]);
  const [down, across] = [fixed(along(height, h)), fixed(along(width, w))];
  if (across[0][1].length === 2) across.forEach((tap) => settle(tap, width));
  const inside = (i, size) => Math.max(0, Math.min(i, size - 1));
  const lines = new Map();
  const line = (row) => {
    let found = lines.get(row);
    if (!found) {
      found = new Int32Array(w * channels);
      for (let x = 0; x < w; x++) {
        const [first, weights] = across[x];
        for (let c = 0; c < channels; c++) {
          let sum = 0;
          for (let k = 0; k < weights.length; k++) {
            sum += pixels[(row * width + inside(first + k, width)) * channels + c] * weights[k];
          }
          found[x * channels + c] = sum;
        }
      }
      lines.set(row, found);
    }
    return found;
  };
  const out = new Uint8Array(h * w * channels);
  for (let y = 0; y < h; y++) {
    const [first, weights] = down[y];
    const rows = weights.map((_, k) => line(inside(first + k, height)));
    for (const row of lines.keys()) if (row < first) lines.delete(row);
    for (let i = 0; i < w * channels; i++) {
      let sum = 0;
      if (weights.length === 2) {
        sum = ((weights[0] * (rows[0][i] >> 4)) >> 16) + ((weights[1] * (rows[1][i] >> 4)) >> 16);
        out[y * w * channels + i] = Math.max(0, Math.min(255, (sum + 2) >> 2));
      } else {
        for (let k = 0; k < weights.length; k++) sum += rows[k][i] * weights[k];
        out[y * w * channels + i] = Math.max(0, Math.min(255, Math.floor(sum / (STEPS * STEPS) + 0.5)));
      }
    }
  }
  return out;
}
