// Draws each canvas[data-chart] from its JSON, and updates it in place when htmx swaps the JSON.
import { CurveChart } from "./charts/curve.js";
import { bindControls } from "./charts/controls.js";
import { downloadCsv, downloadPng } from "./charts/download.js";
import { forgetDetached, redrawCurves } from "./charts/group.js";
import { PlainChart } from "./charts/plain.js";
import { change, onChange, state } from "./charts/state.js";

const drawn = new WeakMap(); // canvas -> its chart and the JSON that it was drawn from

function draw(canvas) {
  const text = document.getElementById(canvas.dataset.chart)?.textContent;
  const before = drawn.get(canvas);
  if (!text || before?.text === text) return;
  const spec = JSON.parse(text);
  if (before) before.chart.update(spec);
  const chart = before?.chart ?? new (spec.type === "curve" ? CurveChart : PlainChart)(canvas, spec);
  drawn.set(canvas, { chart, text });
  if (!before) bindTools(canvas.closest("figure"), chart);
}

function bindTools(figure, chart) {
  const scale = figure.querySelector("[data-chart-tool=log]");
  scale?.setAttribute("aria-pressed", !!state.log[chart.id]);
  figure.addEventListener("click", (event) => {
    const tool = event.target.closest("[data-chart-tool]")?.dataset.chartTool;
    if (tool === "png") downloadPng(chart);
    if (tool === "csv") downloadCsv(chart);
    if (tool === "log") change({ log: { ...state.log, [chart.id]: !state.log[chart.id] } });
  });
  onChange(() => scale?.setAttribute("aria-pressed", !!state.log[chart.id]));
  const table = figure.querySelector("details");
  if (!table) return;
  table.open ||= !!state.open[chart.id];
  table.addEventListener("toggle", () => change({ open: { ...state.open, [chart.id]: table.open } }));
}

function drawAll() {
  forgetDetached();
  const canvases = [...document.querySelectorAll("canvas[data-chart]")];
  canvases.forEach(draw);
  redrawCurves(); // their horizontal axes show what all of them cover
  bindControls();
}

function recolour() {
  document.querySelectorAll("canvas[data-chart]").forEach((canvas) => drawn.get(canvas)?.chart.render());
}

// What a poll would replace by the same is left alone: a selection in it stays.
document.addEventListener("htmx:oobBeforeSwap", (event) => {
  const { target, fragment } = event.detail;
  if (target.closest(".chart") && fragment.firstElementChild?.innerHTML === target.innerHTML) event.detail.shouldSwap = false;
});
document.addEventListener("htmx:afterSettle", drawAll);
document.addEventListener("theme", recolour);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
drawAll(); // a module runs once the page is parsed
