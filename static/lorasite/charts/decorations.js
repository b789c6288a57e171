// A Chart.js plugin that draws what a curve chart shows beside its curves: the baselines and the best checkpoint.
import { BASELINE_DASHES, font, page } from "./look.js";

export function decorations(curve) {
  return {
    id: "decorations",
    beforeDatasetsDraw({ ctx, chartArea, scales }) {
      drawBaselines(curve, ctx, chartArea, scales.y);
      drawBest(curve, ctx, chartArea, scales.x);
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
  const text = `★ ${curve.spec.best.label}`;
  const isRight = at > (left + right) / 2;
  write(ctx, text, isRight ? at + 5 : at - 5, top - 2, isRight ? "right" : "left", page().accent);
}
