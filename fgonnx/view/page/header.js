// What a picture file says that browsers' decoders do not tell, or read in different ways: alpha, bits, inks, EXIF.

const PNG = [0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10];
const HIDDEN = [0x6a, 0x75, 0x4e, 0x6b]; // "juNk"
const ORIENTATION = 0x0112;
const UPRIGHT = 1;

/**
 * Read the header of a picture file.
 *
 * @returns {{alpha: boolean, deep: boolean, orientation: number, exif: number[], notes: string[], refused: string}}
 *   `deep` for more than 8 bits; `orientation` is EXIF's, 1 to 8; `exif` are the places of the names of such data;
 *   `refused` says why the file is not to be read
 */
export function inspect(bytes) {
  const found = { alpha: false, deep: false, orientation: UPRIGHT, exif: [], notes: [], refused: "" };
  if (PNG.every((byte, i) => bytes[i] === byte)) {
    found.alpha = bytes[25] === 4 || bytes[25] === 6;
    for (const { name } of chunks(bytes)) found.alpha ||= name === "tRNS";
    if (bytes[25] === 3) found.notes.push("palette expanded to colours");
    found.deep = bytes[24] === 16;
    read(found, bytes, chunks(bytes), "eXIf");
  } else if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP") {
    found.alpha = text(bytes, 12, 4) === "VP8X" && (bytes[20] & 16) !== 0;
    read(found, bytes, chunks(bytes), "EXIF");
  } else if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    const parts = [...segments(bytes)];
    const frame = parts.find(({ marker }) => isFrame(marker));
    if (frame && bytes[frame.start + 5] === 4)
      found.refused = "has four inks (CMYK), which browsers and fgonnx read differently: save it as RGB";
    const application = parts.filter(({ marker }) => marker === 0xe1);
    const named = application.map(({ start, end }) => ({
      name: text(bytes, start, 6),
      place: start,
      start: start + 6,
      end,
    }));
    read(found, bytes, named, "Exif\0\0");
  } else if (text(bytes, 4, 4) === "ftyp") {
    found.refused = container(bytes);
  }
  return found;
}

/** Return the file with its EXIF data under a name that no decoder reads. */
export function withoutExif(bytes, places) {
  if (!places.length) return bytes;
  const copy = bytes.slice();
  for (const place of places) copy.set(HIDDEN, place);
  return copy;
}

/**
 * Turn pixels upright.
 *
 * @param {Uint8ClampedArray} rgba pixels (height, width, 4)
 * @param {number} orientation as EXIF numbers them
 */
export function upright(rgba, [height, width], orientation) {
  const swapped = orientation >= 5;
  const [rows, columns] = swapped ? [width, height] : [height, width];
  const fromBelow = [3, 4, 6, 7].includes(orientation);
  const fromRight = [2, 3, 7, 8].includes(orientation);
  const before = new Uint32Array(rgba.buffer, rgba.byteOffset, height * width);
  const after = new Uint32Array(height * width);
  for (let row = 0, i = 0; row < rows; row++)
    for (let column = 0; column < columns; column++, i++) {
      const y = swapped ? column : row;
      const x = swapped ? row : column;
      after[i] = before[(fromBelow ? height - 1 - y : y) * width + (fromRight ? width - 1 - x : x)];
    }
  const changed = rows !== height || after.some((pixel, i) => pixel !== before[i]);
  return { rgba: new Uint8ClampedArray(after.buffer), size: [rows, columns], changed };
}

/** Note the EXIF data among named parts of a file; the first one counts. */
function read(found, bytes, parts, wanted) {
  const exif = [...parts].filter(({ name }) => name === wanted);
  found.exif = exif.map(({ place }) => place);
  if (exif.length) found.orientation = orientation(bytes, exif[0].start, exif[0].end);
}

/** The orientation in EXIF data, which are a TIFF file. */
function orientation(bytes, start, end) {
  const stop = Math.min(end, bytes.length);
  if (stop - start < 10) return UPRIGHT;
  const little = text(bytes, start, 2) === "II";
  if (!little && text(bytes, start, 2) !== "MM") return UPRIGHT;
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, stop - start);
  const directory = view.getUint32(4, little);
  if (view.getUint16(2, little) !== 42 || directory + 2 > view.byteLength) return UPRIGHT;
  const count = view.getUint16(directory, little);
  for (let i = 0, at = directory + 2; i < count && at + 10 <= view.byteLength; i++, at += 12) {
    if (view.getUint16(at, little) !== ORIENTATION) continue;
    const value = view.getUint16(at + 8, little);
    return value >= 1 && value <= 8 ? value : UPRIGHT;
  }
  return UPRIGHT;
}

/** Say why a HEIF or AVIF file is not read; "" where it is. */
function container(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const brands = text(bytes, 8, Math.min(view.getUint32(0), 256) - 8);
  if (!/avi[fs]/.test(brands)) return "is HEIF or a film, which fgonnx does not read: save it as JPEG or PNG";
  const all = new TextDecoder("windows-1252").decode(bytes); // a character for each byte
  let header = "";
  for (let at = 0, size; at + 8 <= bytes.length; at += size) {
    size = Math.max(view.getUint32(at), 8);
    if (text(bytes, at + 4, 4) === "meta") header += all.slice(at, at + size);
  }
  const rotated = /irot([^])/.exec(header);
  let turned = header.includes("imir") || (rotated !== null && (rotated[1].charCodeAt(0) & 3) !== 0);
  for (const { index } of all.matchAll(/II\*\0|MM\0\*/g))
    turned ||= orientation(bytes, index, bytes.length) !== UPRIGHT;
  return turned ? "is AVIF that is to be turned, which browsers and fgonnx read differently: save it as PNG or JPEG" : "";
}

function text(bytes, at, length) {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}

/** The chunks of a PNG or WebP file: their names, and where these and their contents are. */
function* chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const png = bytes[0] === PNG[0];
  for (let at = png ? 8 : 12; at + 8 <= bytes.length; ) {
    const place = png ? at + 4 : at;
    const length = png ? view.getUint32(at) : view.getUint32(at + 4, true);
    yield { name: text(bytes, place, 4), place, start: at + 8, end: at + 8 + length };
    at += png ? 12 + length : 8 + length + (length % 2);
  }
}

/** The segments of a JPEG file in front of its pixels: their markers, and where their contents are. */
function* segments(bytes) {
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; ) {
    const marker = bytes[at + 1];
    if (marker === 0xda) return;
    if (marker === 0xff) {
      at += 1; // filling
      continue;
    }
    const end = at + 2 + (bytes[at + 2] << 8) + bytes[at + 3];
    yield { marker, start: at + 4, end };
    at = end;
  }
}

function isFrame(marker) {
  return marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
}
