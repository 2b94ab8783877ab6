// Files of the page: beside it, or inside it where it is one file.

const inside = globalThis.fgonnxFiles;

/** Whether the page is one file. */
export const single = Boolean(inside);

function unpacked(name) {
  const text = atob(inside[name]);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Return the bytes of a file; `progress` hears how many of how many there are. */
export async function bytesOf(name, progress = () => {}) {
  if (single) return unpacked(name);
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: the server answers ${answer.status}`);
  const total = Number(answer.headers.get("Content-Length")) || 0;
  const parts = [];
  let count = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    progress((count += value.length), total);
  }
  const whole = new Uint8Array(count);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export async function jsonOf(name) {
  return JSON.parse(new TextDecoder().decode(await bytesOf(name)));
}

/** Return an address of a file, for modules and pictures. */
export function addressOf(name, type) {
  if (!single) return new URL(name, document.baseURI).href;
  return URL.createObjectURL(new Blob([unpacked(name)], { type }));
}
