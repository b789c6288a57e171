// The legend of a curve chart: a button per series, with its value at the crosshair or at the end.
import { BASELINE_DASHES, dash, formatPlace, formatValue } from "./look.js";
import { change, state } from "./state.js";

const SVG = "http://www.w3.org/2000/svg";

function swatch(isDots, dashes) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 8");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(SVG, isDots ? "circle" : "line");
  const attributes = isDots ? { cx: 12, cy: 4, r: 3.5 } : { x1: 0, y1: 4, x2: 24, y2: 4, "stroke-dasharray": dashes.join(" ") };
  for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
  svg.append(shape);
  return svg;
}

function element(name, className, ...children) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...children);
  return made;
}

export class Legend {
  constructor(curve) {
    this.curve = curve;
    this.list = curve.figure.querySelector(".chart-legend");
    this.labels = null;
    this.values = new Map(); // the element that shows the value of each series
    this.list.addEventListener("click", (event) => {
      const label = event.target.closest("button")?.dataset.series;
      if (label !== undefined) this.toggle(label);
    });
  }

  toggle(label) {
    const { id } = this.curve;
    const hidden = state.hidden[id] ?? [];
    const others = hidden.filter((other) => other !== label);
    change({ hidden: { ...state.hidden, [id]: others.length < hidden.length ? others : [...hidden, label] } });
  }

  show(isEmpty) {
    const { series, spec } = this.curve;
    const shown = isEmpty ? [] : series.filter(({ points }) => points.length);
    const baselines = isEmpty ? [] : spec.baselines;
    const labels = [...shown, ...baselines].map(({ label }) => label);
    if (labels.join("\n") !== this.labels) {
      this.labels = labels.join("\n");
      this.list.replaceChildren(
        ...shown.map((one) => this.entry(one.label, one.hue % 8, swatch(one.dots, dash(one.hue)))),
        ...baselines.map(({ label, value }, i) => this.entry(label, "none", swatch(false, BASELINE_DASHES[i % BASELINE_DASHES.length]), formatValue(value))),
      );
    }
    this.values = new Map(shown.map(({ label }, i) => [label, this.list.children[i].querySelector(".chart-value")]));
    this.list.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", !this.curve.isHidden(button.dataset.series)));
  }

  entry(label, hue, mark, value = "") {
    const button = element("button", "chart-key", mark, element("span", "chart-label", label), " ", element("span", "chart-value", value));
    button.type = "button";
    button.dataset.series = label;
    button.dataset.hue = hue;
    return element("li", "", button);
  }

  // Shows the values under the crosshair, or the last ones; tells screen readers those under it.
  read(pointed) {
    const { curve } = this;
    const byLabel = new Map(pointed.map(({ series, point }) => [series.label, point]));
    for (const series of curve.series) {
      const point = byLabel.get(series.label) ?? series.drawn.at(-1);
      const value = this.values.get(series.label);
      const text = point ? formatValue(point.y) : "";
      if (value && value.textContent !== text) value.textContent = text;
    }
    if (curve.cursor !== null && curve.box === document.activeElement) this.announce(pointed);
  }

  announce(pointed) {
    const { curve } = this;
    const values = pointed.map(({ series, point }) => `${series.label} ${formatValue(point.y)}`).join(", ");
    const [min, max] = curve.range;
    curve.box.setAttribute("aria-valuetext", `${curve.title()} ${formatPlace(curve.axis, curve.cursor, max - min)}: ${values}`);
  }
}
