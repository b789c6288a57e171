// Bars, lines and scatter plots: charts that need no zoom.
import { dash, colour, formatValue, page, pointStyle } from "./look.js";

function scatter(spec) {
  return spec.series.map((series, i) => {
    const drawn = series.reference ? page().text : colour(i);
    const many = series.line && series.points.length > 40;
    return {
      label: series.label, data: series.points.map(([x, y]) => ({ x, y })), borderColor: drawn, backgroundColor: drawn,
      showLine: !!series.line, borderDash: series.reference ? [2, 3] : dash(i), borderWidth: series.reference ? 1 : 2, tension: 0,
      pointRadius: series.reference || many ? 0 : series.points.length > 100 ? 2 : 3, pointStyle: pointStyle(i),
    };
  });
}

function byLabel(spec) {
  return spec.series.map((series, i) => ({
    label: series.label, data: series.data, borderColor: colour(i), backgroundColor: colour(i),
    borderDash: dash(i), borderWidth: 2, pointRadius: series.data.length > 40 ? 0 : 2, spanGaps: true, tension: 0,
  }));
}

function options(spec) {
  const { text, grid } = page();
  const isScatter = spec.type === "scatter";
  const axis = (title) => ({ title: { display: true, text: title, color: text }, ticks: { color: text, maxTicksLimit: 8 }, grid: { color: grid }, stacked: !!spec.stacked });
  const numbers = { callback: (value) => formatValue(value) };
  const lines = { color: text, usePointStyle: true, pointStyle: "line", pointStyleWidth: 28 }; // with their dashes, as they are drawn
  const y = axis(spec.y_label);
  const x = axis(spec.x_label);
  Object.assign(y.ticks, numbers);
  if (isScatter) Object.assign(x.ticks, numbers);
  return {
    animation: false, maintainAspectRatio: false,
    interaction: isScatter ? { mode: "nearest", intersect: false } : { mode: "index", intersect: false },
    plugins: { legend: { display: spec.series.length > 1, labels: spec.type === "bar" ? { color: text } : lines } },
    scales: { x, y: { ...y, beginAtZero: spec.type === "bar" } },
  };
}

export class PlainChart {
  constructor(canvas, spec) {
    this.id = canvas.id;
    this.canvas = canvas;
    this.chart = new Chart(canvas, { type: spec.type, data: { datasets: [] }, options: options(spec) });
    this.update(spec);
  }

  update(spec) {
    this.spec = spec;
    this.render();
  }

  render() {
    const series = this.spec.type === "scatter" ? scatter(this.spec) : byLabel(this.spec);
    const datasets = this.chart.data.datasets; // kept, so that hidden series stay hidden
    this.chart.data.labels = this.spec.labels;
    series.forEach((one, i) => (datasets[i] ? Object.assign(datasets[i], one) : datasets.push(one)));
    this.chart.options = options(this.spec);
    this.chart.update("none");
  }

  // Returns the lines of its CSV file.
  lines() {
    const { spec } = this;
    const head = [spec.x_label, ...spec.series.map((series) => series.label)];
    if (spec.type !== "scatter") return [head, ...spec.labels.map((label, i) => [label, ...spec.series.map((series) => series.data[i])])];
    const places = spec.series.map((_, i) => i);
    return [head, ...spec.series.flatMap((series, own) => series.points.map(([x, y]) => [x, ...places.map((i) => (i === own ? y : null))]))];
  }
}
