// What all curve charts of a page share: the axis, what is shown of it, and the crosshair.
import { indexAt, nearest } from "./points.js";
import { change, onChange, state } from "./state.js";

const CLOSEST = 10_000; // how much of everything a zoom can show, as a share
const DRAWN_FROM = ["axis", "range", "smoothing", "hidden", "log"]; // of the state
const READ_FROM = ["axis", "smoothing", "log"]; // what changes the points, and not only which of them are shown
const curves = new Set();
let extent = [0, 1]; // of all curves, on the axis in use
let frame = 0;

export const join = (curve) => curves.add(curve);
export const rangeOf = (axis) => (state.range?.axis === axis ? [state.range.min, state.range.max] : extent);

// Puts the crosshair of every chart at x, or takes it away if that is null.
export function pointAt(x) {
  curves.forEach((curve) => (curve.cursor = x));
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    curves.forEach((curve) => curve.chart && curve.readOut());
  });
}

// Moves the crosshair to a point of this chart, and what is shown along with it.
export function pointAtIndex(curve, index) {
  const places = curve.places();
  const { x } = places[Math.min(Math.max(index, 0), places.length - 1)];
  const [min, max] = curve.range;
  if (x < min || x > max) zoomTo(curve, x - (max - min) / 2, x + (max - min) / 2);
  pointAt(x);
}

// Returns the number of the point under the crosshair; without one, that of the last point left of what is shown.
export function indexUnderCursor(curve) {
  const places = curve.places();
  return curve.cursor === null ? indexAt(places, curve.range[0]) - 1 : nearest(places, curve.cursor);
}

export function zoomTo(curve, min, max) {
  const [first, last] = extent;
  const width = Math.max(max - min, (last - first) / CLOSEST);
  if (width >= last - first) return change({ range: null });
  const from = Math.min(Math.max(min, first), last - width);
  change({ range: { axis: curve.axis, min: from, max: from + width } });
}

function measureExtent() {
  const series = [...curves].filter((curve) => curve.axis === state.axis).flatMap((curve) => curve.series);
  const ends = series.filter(({ points }) => points.length).flatMap(({ points }) => [points[0].x, points.at(-1).x]);
  return ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
}

// Draws the charts that have news; all of them if that makes their axis longer.
export function redrawCurves() {
  const before = extent;
  extent = measureExtent();
  const isLonger = before[0] !== extent[0] || before[1] !== extent[1];
  curves.forEach((curve) => (isLonger || curve.isOutdated) && curve.render());
}

export function forgetDetached() {
  for (const curve of curves) {
    if (curve.canvas.isConnected) continue;
    curve.chart?.destroy();
    curves.delete(curve);
  }
}

onChange((values) => {
  if (!DRAWN_FROM.some((name) => name in values)) return;
  if (READ_FROM.some((name) => name in values)) curves.forEach((curve) => curve.readSeries());
  if ("axis" in values) {
    curves.forEach((curve) => (curve.cursor = null));
    extent = measureExtent();
  }
  curves.forEach((curve) => curve.render());
});
