// A chart of values over the course of training. All of a page share axis, zoom, smoothing and crosshair.
import { decorations } from "./decorations.js";
import { bindGestures } from "./gestures.js";
import { Legend } from "./legend.js";
import { colour, dash, faint, font, formatPlace, formatValue, page, pointStyle } from "./look.js";
import { join, rangeOf } from "./group.js";
import { cut, joinColumns, nearest, smooth, thin } from "./points.js";
import { readSource } from "./source.js";
import { state } from "./state.js";
import { limits, ticksOf } from "./ticks.js";
import { Overlay } from "./overlay.js";

const Y_AXIS_WIDTH = 56; // px, the same everywhere, so that one place is below the other
const MANY = 30; // points from which on only the line is drawn

export class CurveChart {
  constructor(canvas, spec) {
    Object.assign(this, { id: canvas.id, canvas, box: canvas.parentElement, figure: canvas.closest("figure") });
    this.chart = null; // until there is a point
    this.sources = new Map(); // all points of a long run, by the address that they were read from
    this.cursor = null; // the place under the crosshair
    this.selection = null; // [from, to] in px, while the mouse is dragged
    this.legend = new Legend(this);
    join(this);
    this.update(spec);
    bindGestures(this);
  }

  // Takes over what a poll has brought; `redrawCurves` draws it, once it is known what all charts cover.
  update(spec) {
    this.spec = spec;
    this.readSeries();
    this.isOutdated = true; // what is on the screen
  }

  get axis() {
    return this.spec.axes.some(({ key }) => key === state.axis) ? state.axis : "step";
  }

  get range() {
    return rangeOf(this.axis);
  }

  get isZoomed() {
    return state.range?.axis === this.axis;
  }

  isHidden(label) {
    return !!state.hidden[this.id]?.includes(label);
  }

  // Sets this.series: what is drawn of each series, with its points on the axis in use.
  readSeries() {
    const onLogScale = state.log[this.id];
    this.series = this.spec.series.map((series) => {
      const track = this.spec.tracks[series.track];
      let points = joinColumns(track[this.axis], series.values);
      const all = this.sources.get(this.spec.sources[series.track]);
      if (all?.[series.column]) {
        const stored = joinColumns(all[this.axis], all[series.column]);
        if (stored.length) points = [...stored, ...points.filter(({ x }) => x > stored.at(-1).x)]; // new since it was read
      }
      if (onLogScale) points = points.filter(({ y }) => y > 0);
      const smoothed = state.smoothing && series.noisy ? smooth(points, state.smoothing) : null;
      return { ...series, points, drawn: smoothed ?? points, isSmoothed: !!smoothed };
    });
  }

  render() {
    this.isOutdated = false;
    const isEmpty = this.series.every(({ points }) => !points.length);
    this.figure.toggleAttribute("data-empty", isEmpty);
    this.legend.show(isEmpty);
    if (isEmpty) return;
    this.chart ??= new Chart(this.canvas, { type: "line", data: { datasets: [] }, options: this.options(), plugins: [decorations(this)] });
    this.overlay ??= new Overlay(this);
    const [min, max] = this.range;
    const most = Math.max(200, this.chart.width); // not clientWidth, which would lay out the page again
    const shown = this.series.map((series) => this.dataset(series, thin(series.drawn, min, max, most)));
    const raw = this.series.filter(({ isSmoothed }) => isSmoothed).map((series) => ({
      ...this.dataset(series, thin(series.points, min, max, most)), borderColor: faint(colour(series.hue)), borderWidth: 1.5, borderDash: [], pointRadius: 0, order: 1,
    }));
    const datasets = [...shown, ...raw];
    const visible = datasets.filter(({ hidden }) => !hidden).flatMap(({ data, showLine }) => cut(data, min, max, showLine));
    this.yLimits = limits(visible, this.isZoomed ? [] : this.baselines(), !!state.log[this.id]);
    const drawn = this.chart.data.datasets;
    drawn.length = Math.min(drawn.length, datasets.length);
    datasets.forEach((dataset, i) => (drawn[i] ? Object.assign(drawn[i], dataset) : drawn.push(dataset))); // Chart.js reuses them
    this.chart.options = this.options();
    this.chart.update("none");
    this.describe();
    this.readOut();
    if (this.isZoomed) this.readSources();
  }

  // Makes the chart a slider for screen readers and keys: its value is the point under the crosshair.
  describe() {
    if (this.box.role === "slider") return;
    Object.assign(this.box, { role: "slider", tabIndex: 0, ariaLabel: this.spec.title, ariaValueMin: "1", ariaValueMax: String(this.places().length), ariaValueNow: "1", ariaValueText: this.spec.sentence });
    this.box.setAttribute("aria-describedby", `${this.id}-says`);
  }

  dataset(series, data) {
    const drawn = colour(series.hue);
    return {
      label: series.label, data, hidden: this.isHidden(series.label), parsing: false, normalized: true, tension: 0,
      borderColor: drawn, backgroundColor: drawn, borderWidth: 2, borderDash: dash(series.hue), showLine: !series.dots,
      clip: this.isZoomed ? 0 : 6, pointStyle: series.dots ? "circle" : pointStyle(series.hue), pointRadius: series.dots ? (data.length > MANY ? 3 : 4) : data.length > MANY ? 0 : 2.5,
    };
  }

  options() {
    const { text, grid } = page();
    const [min, max] = this.range;
    const { axis } = this;
    const isLog = !!state.log[this.id];
    const [low, high] = this.yLimits ?? [0, 1];
    const ticks = { color: text, maxRotation: 0, font: { family: font(), size: 12 } };
    return {
      animation: false, maintainAspectRatio: false, events: [], layout: { padding: { top: 16, right: 12 } },
      plugins: { legend: { display: false }, tooltip: { enabled: false } },
      scales: {
        x: {
          type: "linear", min, max: max > min ? max : min + 1, grid: { color: grid }, title: { display: true, text: this.title(), color: text, font: ticks.font },
          ticks: { ...ticks, callback: (place) => formatPlace(axis, place, max - min) }, afterBuildTicks: (scale) => (scale.ticks = ticksOf(scale, axis === "seconds")),
        },
        y: {
          type: isLog ? "logarithmic" : "linear", min: low, max: high, grid: { color: grid }, afterFit: (scale) => (scale.width = Y_AXIS_WIDTH),
          ticks: { ...ticks, callback: formatValue }, afterBuildTicks: (scale) => isLog || (scale.ticks = ticksOf(scale)),
        },
      },
    };
  }

  baselines() {
    return this.spec.baselines.filter(({ label }) => !this.isHidden(label));
  }

  title() {
    return this.spec.axes.find(({ key }) => key === this.axis)?.title ?? this.spec.x_label;
  }

  // Returns the place of the best checkpoint on the axis in use.
  bestPlace() {
    if (!this.spec.best) return null;
    for (const track of this.spec.tracks) {
      const at = track.step.indexOf(this.spec.best.step);
      if (at >= 0) return track[this.axis][at];
    }
    return null;
  }

  // Reads all points of a long run once somebody zooms in: the page has only some of them.
  readSources() {
    for (const url of new Set(this.spec.sources)) {
      if (!url || this.sources.has(url)) continue;
      this.sources.set(url, null);
      readSource(url).then((columns) => {
        this.sources.set(url, columns);
        if (!this.canvas.isConnected) return;
        this.readSeries();
        this.render();
      }, () => this.sources.delete(url)); // what was thinned out stays so; the next zoom tries again
    }
  }

  // Returns the point of each visible series that is nearest to the crosshair.
  pointed() {
    const { cursor } = this;
    if (cursor === null) return [];
    const visible = this.series.filter((series) => series.points.length && !this.isHidden(series.label));
    return visible.map((series) => ({ series, point: series.drawn[nearest(series.points, cursor)] }));
  }

  // Shows the crosshair, and what lies under it.
  readOut() {
    const pointed = this.pointed();
    this.legend.read(pointed);
    this.overlay.draw(pointed);
  }

  // The x that the crosshair can stand on: those of the series with the most points.
  places() {
    return this.series.reduce((longest, { points }) => (points.length > longest.length ? points : longest), []);
  }

  // Returns the lines of its CSV file: a line per point of a series, on each axis.
  lines() {
    const axes = Object.keys(this.spec.tracks[0]);
    const points = this.spec.series.flatMap(({ label, track, values }) =>
      values.map((value, i) => [label, ...axes.map((axis) => this.spec.tracks[track][axis][i]), value]));
    return [["series", ...axes, this.spec.y_label], ...points];
  }
}
