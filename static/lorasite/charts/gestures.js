// Zoom, pan and crosshair of a curve chart by mouse, fingers and keys.
import { indexUnderCursor, pointAt, pointAtIndex, zoomTo } from "./group.js";
import { change } from "./state.js";

const LEAST_DRAG = 6; // px; less is a click
const STEP = 1.25; // zoom of one key or notch of the wheel

function placeAt(curve, clientX) {
  const { left } = curve.canvas.getBoundingClientRect();
  return curve.chart.scales.x.getValueForPixel(clientX - left);
}

function zoomAround(curve, x, factor) {
  const [min, max] = curve.range;
  zoomTo(curve, x - (x - min) / factor, x + (max - x) / factor);
}

function pan(curve, share) {
  if (!curve.isZoomed) return;
  const [min, max] = curve.range;
  zoomTo(curve, min + share * (max - min), max + share * (max - min));
}

export function bindGestures(curve) {
  bindMouse(curve);
  bindFingers(curve);
  bindKeys(curve);
}

function bindMouse(curve) {
  const { canvas } = curve;
  let drag = null; // {x, isPan}
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" || event.button || !curve.chart) return;
    drag = { x: event.clientX, isPan: event.shiftKey };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || !curve.chart) return;
    if (drag?.isPan) {
      pan(curve, (drag.x - event.clientX) / curve.chart.chartArea.width);
      drag.x = event.clientX;
      return;
    }
    const { left } = canvas.getBoundingClientRect();
    curve.selection = drag && Math.abs(event.clientX - drag.x) >= LEAST_DRAG ? [drag.x - left, event.clientX - left] : null;
    pointAt(placeAt(curve, event.clientX));
  });
  const end = (event) => {
    if (!drag) return;
    const { x, isPan } = drag;
    drag = curve.selection = null;
    if (isPan || event.type === "pointercancel" || Math.abs(event.clientX - x) < LEAST_DRAG) return;
    const ends = [placeAt(curve, x), placeAt(curve, event.clientX)];
    zoomTo(curve, Math.min(...ends), Math.max(...ends));
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => drag || pointAt(null));
  canvas.addEventListener("dblclick", () => change({ range: null }));
  canvas.addEventListener("wheel", (event) => turnWheel(curve, event), { passive: false });
}

// Ctrl or ⌘ and the wheel zoom, as two fingers on a touchpad do. Without a key the page scrolls.
function turnWheel(curve, event) {
  if (!curve.chart) return;
  const isSideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
  if (event.ctrlKey || event.metaKey) zoomAround(curve, placeAt(curve, event.clientX), STEP ** (-event.deltaY / 100));
  else if (curve.isZoomed && (event.shiftKey || isSideways)) pan(curve, (isSideways ? event.deltaX : event.deltaY) / curve.chart.chartArea.width);
  else return;
  event.preventDefault();
}

// Two fingers zoom and pan, one moves the crosshair, or what is shown of a zoomed chart. Up and down scrolls the page.
function bindFingers(curve) {
  const { canvas } = curve;
  const fingers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "touch" || !curve.chart) return;
    fingers.set(event.pointerId, event.clientX);
    pointAt(placeAt(curve, event.clientX));
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (before === undefined) return;
    fingers.set(event.pointerId, event.clientX);
    const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, x]) => x);
    if (other !== undefined) pinch(curve, other, before, event.clientX);
    else if (curve.isZoomed) pan(curve, (before - event.clientX) / curve.chart.chartArea.width);
    else pointAt(placeAt(curve, event.clientX));
  });
  const lift = (event) => fingers.delete(event.pointerId);
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
}

// The place under the finger that rests stays there.
function pinch(curve, resting, before, now) {
  const width = Math.abs(before - resting);
  if (width < LEAST_DRAG || !now) return;
  zoomAround(curve, placeAt(curve, resting), Math.abs(now - resting) / width || 1);
}

function bindKeys(curve) {
  curve.box.addEventListener("keydown", (event) => {
    if (!curve.chart || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = keyAction(curve, event);
    if (!act) return;
    event.preventDefault();
    event.stopPropagation(); // the page has shortcuts of its own
    act();
    curve.box.setAttribute("aria-valuemax", curve.places().length);
    curve.box.setAttribute("aria-valuenow", indexUnderCursor(curve) + 1);
  });
  curve.box.addEventListener("blur", () => pointAt(null));
}

function keyAction(curve, { key, shiftKey }) {
  const count = curve.places().length;
  const at = indexUnderCursor(curve);
  const [min, max] = curve.range;
  const middle = curve.cursor !== null && curve.cursor >= min && curve.cursor <= max ? curve.cursor : (min + max) / 2;
  const step = Math.max(1, Math.round(count / 20));
  const moveTo = (index) => () => pointAtIndex(curve, index);
  const keys = {
    ArrowRight: shiftKey ? () => pan(curve, 0.1) : moveTo(at + 1),
    ArrowLeft: shiftKey ? () => pan(curve, -0.1) : moveTo(at - 1),
    PageUp: moveTo(at + step),
    PageDown: moveTo(at - step),
    Home: moveTo(0),
    End: moveTo(count - 1),
    "+": () => zoomAround(curve, middle, STEP),
    "=": () => zoomAround(curve, middle, STEP),
    "-": () => zoomAround(curve, middle, 1 / STEP),
    0: () => change({ range: null }),
    Escape: () => change({ range: null }),
  };
  return keys[key];
}
