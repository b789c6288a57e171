// The crosshair and the selection: drawn over a curve chart, so that moving them does not draw its curves again.
import { formatPlace } from "./look.js";

const SVG = "http://www.w3.org/2000/svg";

function shape(name, className, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  made.setAttribute("class", className);
  place(made, attributes);
  return made;
}

function place(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

export class Overlay {
  constructor(curve) {
    this.curve = curve;
    this.line = shape("line", "crosshair");
    this.text = shape("text", "crosshair-place");
    this.dots = shape("g", "crosshair-dots");
    this.selection = shape("rect", "selection");
    this.svg = shape("svg", "chart-overlay", { "aria-hidden": "true" });
    this.svg.append(this.selection, this.line, this.dots, this.text);
    curve.box.append(this.svg);
  }

  draw(pointed) {
    this.drawSelection();
    const { curve } = this;
    const { chartArea, scales } = curve.chart;
    const { left, right, top, bottom } = chartArea;
    const x = curve.cursor === null ? NaN : scales.x.getPixelForValue(curve.cursor);
    const isShown = x >= left - 1 && x <= right + 1;
    this.svg.toggleAttribute("data-crosshair", isShown);
    if (!isShown) return;
    place(this.line, { x1: x, x2: x, y1: top, y2: bottom });
    const [min, max] = curve.range;
    const isRight = x > (left + right) / 2;
    place(this.text, { x: isRight ? x + 5 : x - 5, y: top - 4, "text-anchor": isRight ? "end" : "start" });
    this.text.textContent = `${curve.title()} ${formatPlace(curve.axis, curve.cursor, max - min)}`;
    const inside = pointed.map(({ series, point }) => ({ hue: series.hue % 8, x: scales.x.getPixelForValue(point.x), y: scales.y.getPixelForValue(point.y) }))
      .filter((dot) => dot.x >= left - 1 && dot.x <= right + 1 && dot.y >= top - 1 && dot.y <= bottom + 1);
    while (this.dots.children.length < inside.length) this.dots.append(shape("circle", "", { r: 5 }));
    while (this.dots.children.length > inside.length) this.dots.lastChild.remove();
    inside.forEach((dot, i) => place(this.dots.children[i], { cx: dot.x, cy: dot.y, "data-hue": dot.hue }));
  }

  drawSelection() {
    const { selection, chart } = this.curve;
    const { left, right, top, bottom } = chart.chartArea;
    const [from, to] = (selection ?? [0, 0]).map((x) => Math.min(Math.max(x, left), right));
    place(this.selection, { x: Math.min(from, to), y: top, width: Math.abs(to - from), height: bottom - top });
  }
}
