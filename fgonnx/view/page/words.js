// Elements and numbers. Text always goes in as text: names come out of files that others wrote.

/** Make an element with properties and children; children that are no elements become text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.map((child) => (child instanceof Node ? child : visible(String(child)))));
  return made;
}

/** Write characters that are not to be seen, or that turn text around, as code points. */
export function visible(text) {
  return text.replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_C}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** Tell whether nothing of a text is to be seen. */
export function blank(text) {
  return !/[^\s\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]/u.test(visible(text));
}

/** A number with few digits. */
export function short(x) {
  if (x === 0 || !Number.isFinite(x)) return String(x);
  const size = Math.abs(x);
  return size >= 1e5 || size < 1e-3 ? x.toExponential(1) : x.toPrecision(3);
}

export function percent(x) {
  const share = 100 * x;
  return `${share >= 99.95 || share < 0.05 ? share.toFixed(share < 0.05 && share > 0 ? 3 : 1) : share.toFixed(1)} %`;
}

export function milliseconds(ms) {
  return ms >= 10_000 ? `${(ms / 1000).toFixed(1)} s` : ms >= 10 ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`;
}
