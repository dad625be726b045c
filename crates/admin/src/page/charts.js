// A chart of lines over the last minutes, drawn as SVG. It knows nothing of what it shows.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
const LEFT = 46;
const RIGHT = 6;
const TOP = 6;
const BOTTOM = 20;
// The least time that is shown, while there is not more yet, and how far apart its labels are.
const LEAST_SPAN = 60000;
const TICKS = [[90000, 15000, "s"], [200000, 30000, "s"], [Infinity, 60000, "min"]];

export function element(parent, name, attributes = {}, text) {
  const svg = ["svg", "path", "line", "text", "g"].includes(name);
  const made = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

// Steps of 1, 2 and 5, so that labels are round.
function niceTop(highest) {
  if (!(highest > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(highest));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= highest * 1.02) ?? 10 * power;
}

/// Each series: { key, name, tint, dash, fill }. `format` writes a value. A logarithmic scale suits what spans decades.
export class Chart {
  constructor(place, series, { format, span, logarithmic = false, label }) {
    Object.assign(this, { place, series, format, span, logarithmic, label });
    this.points = [];
    this.cursor = null;
    this.legend = element(place, "div", { class: "legend" });
    this.values = new Map();
    for (const { key, name, tint, dash } of series) {
      const entry = element(this.legend, "span", { class: `tint-${tint}` });
      const key_line = element(entry, "svg", { viewBox: "0 0 18 10", "aria-hidden": "true" });
      element(key_line, "path", { class: `line ${dash ?? ""}`, d: "M0 5H18" });
      entry.append(`${name} `);
      this.values.set(key, element(entry, "b", {}, "–"));
    }
    this.moment = element(this.legend, "span", { class: "at" }, "now");
    this.svg = element(place, "svg", { role: "img", "aria-label": label });
    const point = (event) => {
      this.cursor = event.clientX - this.svg.getBoundingClientRect().left;
      this.draw();
    };
    this.svg.addEventListener("pointermove", point);
    this.svg.addEventListener("pointerdown", point);
    this.svg.addEventListener("pointerleave", () => {
      this.cursor = null;
      this.draw();
    });
    new ResizeObserver(() => this.draw()).observe(place);
  }

  /// `point` is { at: milliseconds, [key]: number or null }; null for a key leaves a gap.
  add(point) {
    this.points.push(point);
    const oldest = point.at - this.span;
    while (this.points.length && this.points[0].at < oldest) this.points.shift();
    this.draw();
  }

  /// Leaves a gap: what comes next does not follow from what was there.
  gap(at) {
    this.points.push({ at });
  }

  /// Forgets all: what comes next lies before what was there.
  clear() {
    this.points = [];
  }

  draw() {
    const width = this.svg.clientWidth || this.place.clientWidth;
    const last = this.points.at(-1);
    if (!width || !last) return;
    this.shown = Math.min(this.span, Math.max(LEAST_SPAN, last.at - this.points[0].at));
    const x = (at) => LEFT + (1 - (last.at - at) / this.shown) * (width - LEFT - RIGHT);
    const y = this.scale();
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.drawGrid(x, y, width, last.at);
    for (const series of this.series) this.drawSeries(series, x, y);
    this.drawCursor(x, last);
  }

  scale() {
    const all = this.points.flatMap((point) => this.series.map(({ key }) => point[key])).filter((v) => v > 0);
    const [bottom, height] = [HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP];
    if (!this.logarithmic) {
      const top = niceTop(Math.max(0, ...all));
      const place = (value) => bottom - (value / top) * height;
      return Object.assign(place, { labels: [0, 0.25, 0.5, 0.75, 1].map((part) => part * top) });
    }
    let low = Math.floor(Math.log10(Math.min(...all, 1e9)));
    let high = Math.ceil(Math.log10(Math.max(...all, 1e-9)));
    if (!all.length) [low, high] = [0, 3];
    if (high - low < 2) high = low + 2;
    const place = (value) => bottom - ((Math.log10(Math.max(value, 10 ** low)) - low) / (high - low)) * height;
    const labels = Array.from({ length: high - low + 1 }, (_, step) => 10 ** (low + step));
    return Object.assign(place, { labels });
  }

  drawGrid(x, y, width, now) {
    for (const value of y.labels) {
      element(this.svg, "line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) });
      element(this.svg, "text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, this.format(value));
    }
    const [, step, unit] = TICKS.find(([limit]) => this.shown <= limit);
    for (let before = 0; before < this.shown - step / 3; before += step) {
      const name = before === 0 ? "now" : `−${before / (unit === "s" ? 1000 : 60000)} ${unit}`;
      const anchor = before === 0 ? "end" : "middle";
      element(this.svg, "text", { x: x(now - before), y: HEIGHT - 4, "text-anchor": anchor }, name);
    }
  }

  drawSeries({ key, tint, dash, fill }, x, y) {
    const runs = [[]];
    for (const point of this.points) {
      if (Number.isFinite(point[key])) runs.at(-1).push(`${x(point.at).toFixed(1)} ${y(point[key]).toFixed(1)}`);
      else if (runs.at(-1).length) runs.push([]);
    }
    const group = element(this.svg, "g", { class: `tint-${tint}` });
    for (const run of runs.filter((points) => points.length)) {
      const first = run[0].split(" ")[0];
      const end = run.at(-1).split(" ")[0];
      if (fill) element(group, "path", { class: "area", d: `M${first} ${HEIGHT - BOTTOM}L${run.join("L")}L${end} ${HEIGHT - BOTTOM}Z` });
      // A single point gets the least length, or nothing is drawn of it.
      element(group, "path", { class: `line ${dash ?? ""}`, d: `M${run.join("L")}h0.01` });
    }
  }

  drawCursor(x, last) {
    let shown = last;
    if (this.cursor !== null) {
      const distance = (point) => Math.abs(x(point.at) - this.cursor);
      shown = this.points.reduce((best, point) => (distance(point) < distance(best) ? point : best), last);
      element(this.svg, "line", { class: "cursor", x1: x(shown.at), x2: x(shown.at), y1: TOP, y2: HEIGHT - BOTTOM });
    }
    this.moment.textContent = shown === last ? "now" : new Date(shown.at).toLocaleTimeString();
    const spoken = [];
    for (const { key, name } of this.series) {
      const text = Number.isFinite(shown[key]) ? this.format(shown[key]) : "–";
      this.values.get(key).textContent = text;
      spoken.push(`${name} ${text}`);
    }
    this.svg.setAttribute("aria-label", `${this.label}: ${spoken.join(", ")}`);
  }
}
