// A chart as a picture or as a table.
import { font, page } from "./look.js";

const MARGIN = 16;
const LINE = 22;
const SWATCH = 30;

export function downloadCsv(chart) {
  const quoted = (cell) => (cell === null || cell === undefined ? "" : /[",\r\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : cell);
  const text = chart.lines().map((line) => line.map(quoted).join(",")).join("\r\n");
  save(new Blob(["\ufeff", text, "\r\n"], { type: "text/csv" }), chart, "csv"); // the mark tells spreadsheets that it is UTF-8
}

export function downloadPng(chart) {
  if (!chart.chart) return;
  paint(chart).toBlob((blob) => save(blob, chart, "png"), "image/png");
}

// Returns the chart on the page's background with its title and its legend, twice as sharp as the screen at least.
function paint(chart) {
  const { canvas, figure } = chart;
  const keys = figure ? [...figure.querySelectorAll(".chart-key[aria-pressed=true]")] : [];
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const scale = Math.max(2, window.devicePixelRatio);
  chart.chart.options.devicePixelRatio = scale;
  chart.chart.resize();
  const picture = document.createElement("canvas");
  picture.width = (width + 2 * MARGIN) * scale;
  picture.height = (height + 2 * MARGIN + LINE * (1 + keys.length)) * scale;
  const ctx = picture.getContext("2d");
  ctx.scale(scale, scale);
  ctx.fillStyle = page().back;
  ctx.fillRect(0, 0, picture.width, picture.height);
  ctx.fillStyle = page().strong;
  ctx.font = `600 14px ${font()}`;
  ctx.fillText(chart.spec.title, MARGIN, MARGIN + 12);
  ctx.drawImage(canvas, MARGIN, MARGIN + LINE, width, height);
  keys.forEach((key, i) => paintKey(ctx, key, MARGIN + LINE * (i + 1.7) + height));
  chart.chart.options.devicePixelRatio = window.devicePixelRatio;
  chart.chart.resize();
  return picture;
}

function paintKey(ctx, key, y) {
  const shape = key.querySelector("line, circle");
  ctx.strokeStyle = ctx.fillStyle = getComputedStyle(shape).stroke;
  ctx.lineWidth = 2;
  ctx.setLineDash((shape.getAttribute("stroke-dasharray") ?? "").split(" ").filter(Boolean).map(Number));
  ctx.beginPath();
  if (shape.tagName === "circle") {
    ctx.arc(MARGIN + 12, y - 4, 4, 0, 2 * Math.PI);
    ctx.fill();
  } else {
    ctx.moveTo(MARGIN, y - 4);
    ctx.lineTo(MARGIN + 24, y - 4);
    ctx.stroke();
  }
  ctx.setLineDash([]);
  ctx.fillStyle = page().strong;
  ctx.font = `12px ${font()}`;
  ctx.fillText(`${key.querySelector(".chart-label").textContent} ${key.querySelector(".chart-value").textContent}`, MARGIN + SWATCH, y);
}

function save(blob, chart, extension) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${document.querySelector("h1").textContent.trim()}-${chart.id}.${extension}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
