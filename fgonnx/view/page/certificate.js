// The certificate: the network as a strip, its layers as bars, and the sum that they make.

import { signedColour } from "./paint.js";
import { element, percent, short } from "./words.js";

const FEW = 8;
const LONG = 34; // letters of a name in the list

export class Certificate {
  constructor({ sum, network, strip, grids, layer, bars, all }, table) {
    Object.assign(this, { sum, network, strip, grids, layer, bars, all, table });
    this.whole = false;
    this.chosen = null;
    all.addEventListener("click", () => {
      this.whole = !this.whole;
      this.rows();
    });
    strip.addEventListener("pointermove", (event) => this.choose(event.target.dataset.site));
    strip.addEventListener("click", (event) => this.choose(event.target.dataset.site));
    strip.addEventListener("keydown", (event) => this.key(event));
  }

  /** Show the contributions of the sites to a score; null where a method has none. */
  show(found, sites, method) {
    this.found = found;
    this.sites = sites;
    this.network.hidden = !found;
    if (!found) {
      this.sum.textContent = `${method} has no certificate: its map is not a sum that can be checked.`;
      return;
    }
    this.names = brief(sites);
    const { contributions, score, residual } = found;
    const total = contributions.reduce((a, b) => a + Math.abs(b), 0);
    this.most = contributions.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
    const inMap = contributions.reduce((a, b, i) => a + (sites[i].in_map ? Math.abs(b) : 0), 0) / (total || 1);
    this.sum.textContent =
      `The score ${short(score)} is the sum of ${sites.length} contributions, to ` +
      `${short(Math.abs(residual) / (total || 1))} of their size. The map shows ${percent(inMap)} of them.`;
    this.cells();
    this.rows();
    this.say();
  }

  cells() {
    const { contributions } = this.found;
    const cells = this.sites.map((site, i) => {
      const cell = element("div", {
        role: "option",
        id: `site-${i}`,
        title: this.words(i),
        className: site.in_map ? "" : "out",
      });
      cell.dataset.site = i;
      cell.setAttribute("aria-label", this.words(i));
      cell.setAttribute("aria-selected", String(i === this.chosen));
      // A root, so that small contributions are not all white.
      const level = Math.sign(contributions[i]) * Math.sqrt(Math.abs(contributions[i]) / this.most);
      cell.style.backgroundColor = signedColour(level, this.table);
      return cell;
    });
    this.strip.replaceChildren(...cells);
    const groups = [];
    for (const { grid } of this.sites) {
      const name = grid.length ? grid.join(" × ") : "–";
      if (groups.at(-1)?.name === name) groups.at(-1).count++;
      else groups.push({ name, count: 1 });
    }
    this.grids.replaceChildren(
      ...groups.map(({ name, count }) => {
        const span = element("span", {}, count / this.sites.length > 0.11 ? name : "");
        span.style.flex = `${count} 1 0`;
        return span;
      }),
    );
  }

  words(i) {
    const { name, op_type, grid, in_map } = this.sites[i];
    const where = grid.length ? `, ${grid.join(" × ")}` : "";
    const [kind, value] = [op_type ? ` (${op_type})` : "", short(this.found.contributions[i])];
    return `${i}: ${name}${kind}${where}: ${value}${in_map ? "" : ", not in the map"}`;
  }

  rows() {
    const { contributions } = this.found;
    const order = Array.from(contributions.keys());
    const largest = [...order].sort((a, b) => Math.abs(contributions[b]) - Math.abs(contributions[a])).slice(0, FEW);
    const shown = this.whole ? order : largest;
    const rows = shown.map((i) => {
      const value = contributions[i];
      const bar = element("i", { className: value < 0 ? "against" : "for" });
      bar.style.width = `${(50 * Math.abs(value)) / this.most}%`;
      const row = element(
        "tr",
        { className: i === this.chosen ? "chosen" : "" },
        element("td", { title: this.words(i) }, this.names[i]),
        element("td", {}, element("div", { className: "bar", ariaHidden: "true" }, bar)),
        element("td", {}, short(value)),
      );
      row.addEventListener("pointerenter", () => this.choose(i, false));
      return row;
    });
    this.bars.tBodies[0].replaceChildren(...rows);
    this.all.hidden = contributions.length <= FEW;
    this.all.setAttribute("aria-expanded", String(this.whole));
    this.all.textContent = this.whole ? `The ${FEW} largest` : `All ${contributions.length} layers, in network order`;
  }

  choose(site, again = true) {
    if (site === undefined || Number(site) === this.chosen) return;
    this.chosen = Number(site);
    for (const cell of this.strip.children)
      cell.setAttribute("aria-selected", String(Number(cell.dataset.site) === this.chosen));
    this.strip.setAttribute("aria-activedescendant", `site-${this.chosen}`);
    if (again) this.rows();
    this.say();
  }

  key(event) {
    const last = this.sites.length - 1;
    const to = { ArrowLeft: (this.chosen ?? 1) - 1, ArrowRight: (this.chosen ?? -1) + 1, Home: 0, End: last }[
      event.key
    ];
    if (to === undefined) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(to, last)));
  }

  say() {
    if (this.chosen !== null && this.chosen >= this.sites.length) this.chosen = null;
    this.layer.textContent =
      this.chosen === null
        ? "Red speaks for the class, blue against it; hatched layers are not in the map."
        : this.words(this.chosen);
  }
}

/** Names of sites in few words: without folders in front of long ones, and without what exporters add at the end. */
function brief(sites) {
  return sites.map(({ name, op_type }) => {
    const [first] = name.split(";"); // of fused layers, all names
    const parts = first
      .replace(/_output_0$/, "")
      .split("/")
      .filter(Boolean);
    if (parts.length > 1 && parts.at(-1).replace(/_\d+$/, "") === op_type) parts.pop();
    while (parts.length > 2 && parts.join("/").length > LONG) parts.shift();
    return parts.join("/") || name;
  });
}
