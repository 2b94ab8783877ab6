// From a map to colours, as fgonnx draws it: scaled to a percentile, the stronger the more opaque.

const PERCENTILE = 99.5;

/** Return the percentile of values, interpolated between neighbours. */
export function percentile(values, percent) {
  const sorted = Float64Array.from(values).sort();
  const at = ((sorted.length - 1) * percent) / 100;
  const [low, high] = [Math.floor(at), Math.ceil(at)];
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

/** Bring a map to 0..1, or to -1..1 with its zero kept. */
export function scaled(map, signed) {
  const values = signed ? Float64Array.from(map, Math.abs) : Float64Array.from(map);
  const low = signed ? 0 : percentile(values, 100 - PERCENTILE);
  let reach = percentile(values, PERCENTILE) - low;
  if (!(reach > 0)) reach = values.reduce((a, b) => Math.max(a, b), -Infinity) - low || 1;
  const least = signed ? -1 : 0;
  return Float32Array.from(map, (x) => Math.max(least, Math.min(1, (x - low) / reach)));
}

/** Colours of scaled values as RGBA; `opacity` is that of the strongest, null for opaque colours everywhere. */
export function coloured(levels, signed, table, opacity) {
  const out = new Uint8ClampedArray(levels.length * 4);
  for (let i = 0; i < levels.length; i++) {
    const at = 3 * Math.round((signed ? (levels[i] + 1) / 2 : levels[i]) * 255);
    out[4 * i] = table[at];
    out[4 * i + 1] = table[at + 1];
    out[4 * i + 2] = table[at + 2];
    out[4 * i + 3] = opacity === null ? 255 : Math.round(255 * opacity * Math.abs(levels[i]));
  }
  return out;
}

/** A colour of the scale of signs, for a value from -1 to 1. */
export function signedColour(value, table) {
  const at = 3 * Math.round(((Math.max(-1, Math.min(1, value)) + 1) / 2) * 255);
  return `rgb(${table[at]} ${table[at + 1]} ${table[at + 2]})`;
}
