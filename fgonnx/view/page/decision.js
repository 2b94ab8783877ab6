// What a model decides: its largest entries, and of a detector its best detections.

import { blank } from "./words.js";

const TOP = 5;
const BEFORE = [4, 5]; // columns before the classes of a detector
const [BOX, OBJECTNESS, FEWEST, COCO, PIXELS] = [4, 4, 16, 80, 2];
const [SEEN, RARE, COMMON] = [0.05, 0.05, 0.15]; // of an objectness and its classes, as in fgonnx.explain.detection

/**
 * Return the decision.
 *
 * @param {Float32Array} scores all entries of the tensor explained
 * @param {Float32Array|null} probabilities what the operator behind it makes of them
 * @param {{shape: number[], axes: (number|null)[], labels: string[]|null, classes: string[]}} head
 * @returns {{entries: object[], own: number, several: boolean, detector: boolean}} the entries to list, the largest
 *   first, and the flat index of the one that is explained where none is asked for
 */
export function decide(scores, probabilities, head) {
  const detections = detected(probabilities ?? scores, head);
  if (detections) return { entries: detections, own: detections[0].index, detector: true };
  const order = largest(scores);
  const entries = order.map((index) => entryOf(index, scores, probabilities, head));
  return { entries, own: order[0], detector: false };
}

/** The indices of the largest values, the largest first; of equal ones, those in front. */
function largest(values) {
  const found = [];
  for (let i = 0; i < values.length; i++) {
    if (found.length === TOP && !(values[i] > values[found[TOP - 1]])) continue;
    let at = found.length;
    while (at > 0 && values[i] > values[found[at - 1]]) at--;
    found.splice(at, 0, i);
    found.length = Math.min(found.length, TOP);
  }
  return found;
}

/** Describe one entry of the head. */
export function entryOf(index, scores, probabilities, head) {
  return {
    index,
    position: positionOf(index, head.shape),
    label: head.labels?.[index] ?? null,
    score: scores[index],
    probability: probabilities?.[index] ?? null,
  };
}

function positionOf(index, shape) {
  const found = [];
  let rest = index;
  for (const size of [...shape].reverse()) {
    found.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return found;
}

/** The name of an entry for people. */
export function nameOf(entry, head) {
  if (entry.name) return entry.name;
  if (entry.label !== null && !blank(entry.label)) return entry.label;
  if (head.shape.filter((size) => size > 1).length > 1) return `entry ${entry.position.join(", ")}`;
  return head.shape.every((size) => size === 1) ? "the only entry" : `class ${entry.index}`;
}

/** The best detection of every class, the best classes first; null where the head is of no detector. */
function detected(values, head) {
  if (head.shape.filter((size) => size > 1).length < 2) return null;
  const table = tableOf(head);
  const { anchors, columns, at } = table;
  const first = firstClass(values, head, table);
  if (first === null) return null;
  const weighed = first === OBJECTNESS + 1 ? objectness(values, table) : null;
  const best = [];
  for (let column = first; column < columns; column++) {
    let found = { score: -Infinity };
    for (let anchor = 0; anchor < anchors; anchor++) {
      const factor = weighed === null ? 1 : values[at(anchor, weighed)];
      const score = values[at(anchor, column)] * factor;
      if (score > found.score) found = { score, anchor, column };
    }
    best.push(found);
  }
  best.sort((a, b) => b.score - a.score);
  const names = aligned(head.classes, columns - first);
  return best.slice(0, TOP).map(({ score, anchor, column }) => {
    const index = at(anchor, column);
    const known = names?.[column - first] ?? "";
    const name = `${blank(known) ? `class ${column - first}` : known}, anchor ${anchor}`;
    return {
      index,
      position: positionOf(index, head.shape),
      label: null,
      name,
      score: values[index],
      probability: score,
    };
  });
}

/** The class names without one of a background. */
function named(classes) {
  const background = classes.length > 0 && classes[0].replace(/^[_ ]+|[_ ]+$/g, "").toLowerCase() === "background";
  return background ? classes.slice(1) : classes;
}

function aligned(classes, count) {
  return [classes, named(classes)].find((names) => names.length === count) ?? null;
}

/** Number of columns before the classes; null where the head is of no detector, as in fgonnx.explain.detection. */
function firstClass(values, head, { anchors, columns, at, placed }) {
  if (head.classes.length > 0) {
    const first = columns - named(head.classes).length;
    return BEFORE.includes(first) || (first === 1 && !placed) ? first : null;
  }
  const coco = BEFORE.includes(columns - COCO);
  if (anchors < FEWEST || columns < BOX || (placed && !coco)) return null;
  if (columns === BOX)
    throw new Error("the tensor explained holds boxes, not classes: name another output (--output) for this page");
  const first = coco ? columns - COCO : BOX;
  let [box, lowest, least, most] = [-Infinity, Infinity, Infinity, -Infinity];
  let [objects, classes] = [0, 0]; // numbers of anchors at which there are any
  for (let anchor = 0; anchor < anchors; anchor++) {
    for (let c = 0; c < BOX; c++) {
      box = Math.max(box, values[at(anchor, c)]);
      lowest = Math.min(lowest, values[at(anchor, c)]);
    }
    let seen = false;
    for (let c = first; c < columns; c++) {
      least = Math.min(least, values[at(anchor, c)]);
      most = Math.max(most, values[at(anchor, c)]);
      seen = seen || (c > first && values[at(anchor, c)] > SEEN);
    }
    if (values[at(anchor, first)] > SEEN) objects++;
    if (seen) classes++;
  }
  if (least < 0 || most > 1) return null;
  if (!coco && columns - first > 1 && objects / anchors <= RARE && classes / anchors >= COMMON)
    return lowest < 0 || box > 1 ? BOX + 1 : null;
  return box > PIXELS || coco ? first : null;
}

function objectness(values, { anchors, at }) {
  const share = (column) => {
    for (let anchor = 0; anchor < anchors; anchor++) {
      const value = values[at(anchor, column)];
      if (!(value >= 0 && value <= 1)) return false;
    }
    return true;
  };
  return share(0) && !share(OBJECTNESS) ? 0 : OBJECTNESS;
}

/** The head as anchors and columns: which axis the columns are, and where an entry of the table lies. */
function tableOf({ shape, axes }) {
  const wide = shape.map((size, i) => i).filter((i) => shape[i] > 1);
  const places = wide.filter((i) => axes[i] !== null && axes[i] !== undefined);
  const rest = wide.filter((i) => !places.includes(i));
  let axis = wide.at(-1);
  if (places.length && rest.length) axis = rest.at(-1);
  else if (wide.length === 2 && shape[wide[0]] < shape[wide[1]]) axis = wide[0];
  const columns = shape[axis];
  const below = shape.slice(axis + 1).reduce((a, b) => a * b, 1);
  const anchors = shape.reduce((a, b) => a * b, 1) / columns;
  const at = (anchor, column) => (Math.floor(anchor / below) * columns + column) * below + (anchor % below);
  return { anchors, columns, at, placed: places.length > 0 };
}
