// A Chart.js plugin that draws what a curve chart shows beside its curves: baselines, best checkpoint, crosshair, selection.
import { BASELINE_DASHES, colour, font, formatPlace, page } from "./look.js";

export function decorations(curve) {
  return {
    id: "decorations",
    beforeDatasetsDraw({ ctx, chartArea, scales }) {
      drawBaselines(curve, ctx, chartArea, scales.y);
      drawBest(curve, ctx, chartArea, scales.x);
    },
    afterDatasetsDraw({ ctx, chartArea, scales }) {
      if (curve.selection) drawSelection(curve.selection, ctx, chartArea);
      if (curve.cursor !== null) drawCrosshair(curve, ctx, chartArea, scales);
    },
  };
}

function drawLine(ctx, from, to, stroke, dashes) {
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.setLineDash(dashes);
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.moveTo(...from);
  ctx.lineTo(...to);
  ctx.stroke();
  ctx.restore();
}

function write(ctx, text, x, y, align, fill) {
  ctx.save();
  ctx.font = `11px ${font()}`;
  ctx.fillStyle = fill;
  ctx.textAlign = align;
  ctx.textBaseline = "bottom";
  ctx.fillText(text, x, y);
  ctx.restore();
}

function drawBaselines(curve, ctx, { left, right, top, bottom }, y) {
  curve.baselines().forEach(({ value }, i) => {
    const at = y.getPixelForValue(value);
    if (at >= top && at <= bottom) drawLine(ctx, [left, at], [right, at], page().text, BASELINE_DASHES[i % BASELINE_DASHES.length]);
  });
}

function drawBest(curve, ctx, { left, right, top, bottom }, x) {
  const place = curve.bestPlace();
  if (place === null) return;
  const at = x.getPixelForValue(place);
  if (at < left - 1 || at > right + 1) return;
  drawLine(ctx, [at, top], [at, bottom], page().accent, [2, 2]);
  if (curve.cursor !== null) return; // the place under the crosshair is written there
  const text = `★ ${curve.spec.best.label}`;
  const isRight = at > (left + right) / 2;
  write(ctx, text, isRight ? at + 5 : at - 5, top - 2, isRight ? "right" : "left", page().accent);
}

function drawSelection([from, to], ctx, { left, right, top, bottom }) {
  const [start, end] = [Math.max(Math.min(from, to), left), Math.min(Math.max(from, to), right)];
  ctx.save();
  ctx.globalAlpha = 0.2;
  ctx.fillStyle = page().accent;
  ctx.fillRect(start, top, end - start, bottom - top);
  ctx.restore();
}

function drawCrosshair(curve, ctx, { left, right, top, bottom }, scales) {
  const at = scales.x.getPixelForValue(curve.cursor);
  if (at < left - 1 || at > right + 1) return;
  const { strong, back } = page();
  drawLine(ctx, [at, top], [at, bottom], strong, []);
  const isRight = at > (left + right) / 2;
  const [min, max] = curve.range;
  write(ctx, `${curve.title()} ${formatPlace(curve.axis, curve.cursor, max - min)}`, isRight ? at + 5 : at - 5, top - 2, isRight ? "right" : "left", strong);
  for (const { series, point } of curve.pointed()) {
    const [px, py] = [scales.x.getPixelForValue(point.x), scales.y.getPixelForValue(point.y)];
    if (px < left - 1 || px > right + 1 || py < top - 1 || py > bottom + 1) continue;
    ctx.save();
    ctx.fillStyle = colour(series.hue);
    ctx.strokeStyle = back;
    ctx.lineWidth = 2;
    ctx.beginPath();
    ctx.arc(px, py, 5, 0, 2 * Math.PI);
    ctx.fill();
    ctx.stroke();
    ctx.restore();
  }
}
