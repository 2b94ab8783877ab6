// The list of classes: the largest entries, each with its bar, and any other by name or number.

import { nameOf } from "./decision.js";
import { element, percent, short } from "./words.js";

export class Classes {
  constructor({ list, other, field, options }, head, choose) {
    Object.assign(this, { list, other, field, options, head, choose });
    const names = head.labels ?? [];
    const single = head.shape.reduce((a, b) => a * b, 1) === 1;
    field.hidden = single;
    options.replaceChildren(...names.map((name, i) => element("option", { value: `${i} ${name}` })));
    if (!names.length) other.placeholder = "number";
    if (head.shape.filter((size) => size > 1).length > 1) field.firstChild.textContent = "Another entry ";
    list.addEventListener("change", (event) => choose(Number(event.target.value)));
    other.addEventListener("change", () => this.find());
  }

  /** Show entries; `target` is the one explained. */
  show(entries, target) {
    const value = (entry) => entry.probability ?? entry.score;
    const [least, most] = [Math.min(0, ...entries.map(value)), Math.max(...entries.map(value))];
    const full = entries.every((entry) => entry.probability !== null) ? 1 : most - least || 1;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.value : null;
    const rows = entries.map((entry) => {
      const input = element("input", {
        type: "radio",
        name: "class",
        value: entry.index,
        checked: entry.index === target,
      });
      const bar = element("i");
      bar.style.width = `${Math.max(0, Math.min(100, (100 * (value(entry) - least)) / full))}%`;
      const written = entry.probability === null ? short(entry.score) : percent(entry.probability);
      return element(
        "label",
        { title: `score ${short(entry.score)}` },
        input,
        element("span", { className: "name" }, nameOf(entry, this.head)),
        element("span", { className: "value" }, written),
        element("span", { className: "meter", ariaHidden: "true" }, bar),
      );
    });
    this.list.replaceChildren(this.list.querySelector("legend"), ...rows);
    if (focused !== null) this.list.querySelector(`input[value="${focused}"]`)?.focus();
  }

  /** Explain the class that is typed: its number, or the beginning or a part of its name. */
  find() {
    const wanted = this.other.value.trim().toLowerCase();
    if (!wanted) return;
    const names = (this.head.labels ?? []).map((name) => name.toLowerCase());
    const count = this.head.shape.reduce((a, b) => a * b, 1);
    const number = /^(\d+)(\s|$)/.exec(wanted);
    const tests = [(name) => name === wanted, (name) => name.startsWith(wanted), (name) => name.includes(wanted)];
    const index = number
      ? Number(number[1])
      : tests.reduce((found, test) => (found < 0 ? names.findIndex(test) : found), -1);
    const right = index >= 0 && index < count;
    this.other.setCustomValidity(right ? "" : `There is no such class; numbers go from 0 to ${count - 1}.`);
    this.other.reportValidity();
    if (!right) return;
    this.other.value = "";
    this.choose(index);
  }
}
