// From the bytes of a picture to its pixels, as OpenCV decodes them: colours as stored, upright as EXIF says.

const PNG = [0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10];
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
  if (found.inks === 4)
    throw new Error(`'${name}' has four inks (CMYK), which browsers and fgonnx read differently: save it as RGB`);
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const shown = found.alpha ? unturned(bytes) : bytes; // fgonnx turns no picture with alpha
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([shown], { type: blob.type }), options);
  } catch {
    throw new Error(`'${name}' cannot be decoded as a picture: give a PNG, JPEG, WebP, GIF, BMP or AVIF file`);
  }
  const { rgba, size, opaque } = pixelsOf(bitmap, name);
  const notes = [...found.notes];
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

/** Read from the header what a decoder does not tell: alpha, bits, inks. */
export function inspect(bytes) {
  const found = { alpha: false, inks: 3, notes: [] };
  if (PNG.every((byte, i) => bytes[i] === byte)) {
    found.alpha = bytes[25] === 4 || bytes[25] === 6;
    for (const { name } of chunks(bytes)) found.alpha ||= name === "tRNS";
    if (bytes[24] === 16) found.notes.push("16-bit reduced to 8");
  } else if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP") {
    found.alpha = text(bytes, 12, 4) === "VP8X" && (bytes[20] & 16) !== 0;
  } else if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    found.inks = components(bytes);
  }
  return found;
}

function text(bytes, at, length) {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}

/** The chunks of a PNG or WebP file: their names, and where these are. */
function* chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const png = bytes[0] === PNG[0];
  for (let at = png ? 8 : 12; at + 8 <= bytes.length;) {
    const place = png ? at + 4 : at;
    yield { name: text(bytes, place, 4), place };
    const length = png ? view.getUint32(at) : view.getUint32(at + 4, true);
    at += png ? 12 + length : 8 + length + (length % 2);
  }
}

/** Return the file with its EXIF data under a name that no decoder reads. */
function unturned(bytes) {
  const exif = [...chunks(bytes)].filter(({ name }) => name.toLowerCase() === "exif");
  if (!exif.length) return bytes;
  const copy = bytes.slice();
  for (const { place } of exif) copy.set([0x6a, 0x75, 0x4e, 0x6b], place); // "juNk"
  return copy;
}

/** Number of components that the frame header of a JPEG names. */
function components(bytes) {
  for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff;) {
    const marker = bytes[at + 1];
    const frame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (frame) return bytes[at + 9];
    at += 2 + (bytes[at + 2] << 8) + bytes[at + 3];
  }
  return 3;
}

/** Return the SHA-256 of bytes in hexadecimal; null where the page is not trusted with it. */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
