// The picture with the map over it: drawing, the legend, the probe.

import { coloured, scaled } from "./paint.js";

const SHARP = 640; // pixels of the longer side that are drawn at least

export class Stage {
  constructor({ canvas, scale, low, high, probe }, colours) {
    Object.assign(this, { canvas, scale, low, high, output: probe, colours });
    this.how = { view: "overlay", opacity: 0.85, table: "inferno", seen: false };
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerdown", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => document.activeElement !== canvas && this.probe(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /** Show a picture, and the map over it where there is one: {bitmap, prepared, map, signed, grey, label}. */
  show(shown) {
    this.shown = shown;
    const { prepared, map, signed } = shown;
    this.levels = map ? scaled(map, signed) : null;
    this.most = map ? map.reduce((a, b) => Math.max(a, Math.abs(b)), 0) : 0;
    if (this.at && (this.at[0] >= prepared.size[1] || this.at[1] >= prepared.size[0])) this.at = null;
    this.draw();
    this.say();
  }

  /** Show nothing. */
  clear() {
    this.shown = this.at = this.levels = null;
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.say();
  }

  change(how) {
    Object.assign(this.how, how);
    if (this.shown) this.draw();
  }

  draw() {
    const { prepared, signed } = this.shown;
    const [h, w] = prepared.size;
    const times = Math.max(1, Math.ceil(SHARP / Math.max(h, w)));
    const { canvas } = this;
    [canvas.width, canvas.height] = [w * times, h * times];
    const context = canvas.getContext("2d");
    if (this.how.view !== "map" || !this.levels) this.picture(context, times);
    if (this.how.view !== "picture" && this.levels) {
      const table = signed ? this.colours.signed : this.colours[this.how.table];
      const opacity = this.how.view === "overlay" ? this.how.opacity : null;
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "high";
      context.drawImage(layer(coloured(this.levels, signed, table, opacity), w, h), 0, 0, canvas.width, canvas.height);
      this.legend(table, signed);
    }
    if (this.at) this.cross(context, times);
  }

  /** The picture, sharp where its own pixels are at hand, or just as the model sees it. */
  picture(context, times) {
    const { bitmap, prepared, grey } = this.shown;
    const [h, w] = prepared.size;
    const seen = layer(opaque(prepared.seen), w, h);
    context.imageSmoothingEnabled = false;
    context.drawImage(seen, 0, 0, w * times, h * times);
    if (this.how.seen || !bitmap || grey) return;
    const [left, top, right, bottom] = prepared.frame;
    const scale = [(w * times) / (right - left), (h * times) / (bottom - top)];
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    const size = [bitmap.width * scale[0], bitmap.height * scale[1]];
    context.fillStyle = "#fff";
    context.fillRect(-left * scale[0], -top * scale[1], ...size);
    context.drawImage(bitmap, -left * scale[0], -top * scale[1], ...size);
  }

  legend(table, signed) {
    const context = this.scale.getContext("2d");
    const image = context.createImageData(256, 1);
    for (let i = 0; i < 256; i++) image.data.set([table[3 * i], table[3 * i + 1], table[3 * i + 2], 255], 4 * i);
    context.putImageData(image, 0, 0);
    [this.low.textContent, this.high.textContent] = signed ? ["against", "for"] : ["low", "high"];
  }

  cross(context, times) {
    const [x, y] = this.at.map((i) => (i + 0.5) * times);
    for (const [width, colour] of [
      [4, "#000a"],
      [1.6, "#fff"],
    ]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.beginPath();
      for (const [dx, dy] of [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
      ]) {
        context.moveTo(x + dx * 7, y + dy * 7);
        context.lineTo(x + dx * 18, y + dy * 18);
      }
      context.stroke();
    }
  }

  point(event) {
    if (!this.shown) return;
    const box = this.canvas.getBoundingClientRect();
    const [h, w] = this.shown.prepared.size;
    const fit = Math.min(box.width / w, box.height / h); // the canvas is contained in its box
    const x = Math.floor((event.clientX - box.left - (box.width - w * fit) / 2) / fit);
    const y = Math.floor((event.clientY - box.top - (box.height - h * fit) / 2) / fit);
    this.probe(x >= 0 && y >= 0 && x < w && y < h ? [x, y] : null);
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape") this.probe(null);
    if (!step || !this.shown) return;
    event.preventDefault();
    const [h, w] = this.shown.prepared.size;
    const far = event.shiftKey ? 10 : 1;
    const [x, y] = this.at ?? [w >> 1, h >> 1];
    const inside = (i, size) => Math.max(0, Math.min(i, size - 1));
    this.probe([inside(x + far * step[0], w), inside(y + far * step[1], h)]);
  }

  probe(at) {
    this.at = at;
    if (this.shown) this.draw();
    this.say();
  }

  say() {
    if (!this.at || !this.shown) {
      this.output.textContent = "Point at the map, or focus it and use the arrow keys.";
      return;
    }
    const [x, y] = this.at;
    const { prepared, map } = this.shown;
    const i = y * prepared.size[1] + x;
    const colour = Array.from(prepared.seen.subarray(3 * i, 3 * i + 3)).join(" ");
    const value = map
      ? `, map ${map[i].toPrecision(3)}, ${Math.round((100 * map[i]) / (this.most || 1))} % of the maximum`
      : "";
    this.output.textContent = `column ${x}, row ${y}${value}, colour ${colour}`;
  }
}

/** A canvas that holds RGBA pixels. */
export function layer(rgba, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
  return canvas;
}

function opaque(rgb) {
  const out = new Uint8ClampedArray((rgb.length / 3) * 4);
  for (let i = 0, o = 0; i < rgb.length; i += 3, o += 4) out.set([rgb[i], rgb[i + 1], rgb[i + 2], 255], o);
  return out;
}
