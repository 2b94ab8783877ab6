// From the bytes of a picture to its pixels, as OpenCV decodes them: colours as stored, upright as EXIF says.

import { inspect, upright, withoutExif } from "./header.js";

const MOST_PIXELS = 100_000_000;

/**
 * Decode a picture.
 *
 * @returns {Promise<{bitmap: ImageBitmap, rgba: Uint8ClampedArray, size: [number, number], opaque: boolean,
 *   notes: string[], bytes: Uint8Array, name: string}>}
 */
export async function decode(blob, name) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  if (bytes.length === 0) throw new Error(`'${name}' is empty (0 bytes): copy or download it again`);
  const found = inspect(bytes);
  if (found.refused) throw new Error(`'${name}' ${found.refused}`);
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  // Browsers turn pictures of some formats and not of others.
  const stored = new Blob([withoutExif(bytes, found.exif)], { type: blob.type });
  let bitmap;
  try {
    bitmap = await createImageBitmap(stored, options);
  } catch {
    throw new Error(`'${name}' cannot be decoded as a picture: give a PNG, JPEG, WebP, GIF, BMP or AVIF file`);
  }
  let { rgba, size, opaque } = pixelsOf(bitmap, name);
  const notes = [...found.notes];
  const turned = found.orientation > 1 ? upright(rgba, size, found.orientation) : { changed: false };
  if (turned.changed && found.alpha) {
    notes.push("EXIF orientation ignored: not supported together with alpha");
  } else if (turned.changed) {
    ({ rgba, size } = turned);
    bitmap.close();
    bitmap = await createImageBitmap(new ImageData(rgba, size[1], size[0]), options);
    notes.push("turned upright as its EXIF orientation says");
  }
  if (found.deep) notes.push("16-bit reduced to 8");
  if (!opaque) notes.push("alpha blended over white");
  return { bitmap, rgba, size, opaque, notes, bytes, name };
}

/** Return the pixels of a bitmap or of a frame of a video. */
export function pixelsOf(source, name = "the picture") {
  const [width, height] = [source.videoWidth || source.width, source.videoHeight || source.height];
  if (width * height > MOST_PIXELS) throw new Error(`'${name}' has ${width} x ${height} pixels: give a smaller one`);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.drawImage(source, 0, 0);
  const rgba = context.getImageData(0, 0, width, height, { colorSpace: "srgb" }).data;
  let opaque = true;
  for (let i = 3; i < rgba.length && opaque; i += 4) opaque = rgba[i] === 255;
  return { rgba, size: [height, width], opaque };
}

/** Tell whether the browser hands pixels out as they are: some change them, against fingerprinting. */
export function exact() {
  const side = 16;
  const drawn = new ImageData(side, side);
  for (let i = 0; i < drawn.data.length; i++) drawn.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256;
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.putImageData(drawn, 0, 0);
  const found = context.getImageData(0, 0, side, side).data;
  return found.every((value, i) => value === drawn.data[i]);
}

/** Return the SHA-256 of bytes in hexadecimal; null where the page is not trusted with it. */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
