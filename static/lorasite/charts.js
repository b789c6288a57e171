"use strict";
// Draws each canvas[data-chart] from its JSON and updates it in place when htmx swaps the JSON: focus and scroll stay.

const LINES = [[], [6, 4], [2, 3]];

function colours() {
  const style = getComputedStyle(document.documentElement);
  return { accent: style.getPropertyValue("--accent"), second: style.getPropertyValue("--second"), text: style.getPropertyValue("--muted"), grid: style.getPropertyValue("--line") };
}

function scatter(chart) {
  const { accent, second, text } = colours();
  return chart.series.map((series, i) => {
    const colour = series.reference ? text : [accent, second][i % 2];
    return {
      label: series.label, data: series.points.map(([x, y]) => ({ x, y })), borderColor: colour, backgroundColor: colour,
      showLine: !!series.line, borderDash: series.reference ? [2, 3] : LINES[i % 3], borderWidth: series.reference ? 1 : 2,
      pointRadius: series.reference || (series.line && series.points.length > 40) ? 0 : series.points.length > 100 ? 2 : 3, pointStyle: ["circle", "triangle", "rect"][i % 3], tension: 0,
    };
  });
}

function datasets(chart) {
  if (chart.type === "scatter") return scatter(chart);
  const { accent, second } = colours();
  return chart.series.map((series, i) => ({
    label: series.label, data: series.data, borderColor: [accent, second][i % 2], backgroundColor: [accent, second][i % 2],
    borderDash: LINES[i % 3], borderWidth: 2, pointRadius: series.data.length > 40 ? 0 : 2, spanGaps: true, tension: 0.15,
  }));
}

function options(chart) {
  const { text, grid } = colours();
  const axis = (title) => ({ title: { display: true, text: title, color: text }, ticks: { color: text, maxTicksLimit: 8 }, grid: { color: grid } });
  return {
    animation: false, maintainAspectRatio: false, interaction: chart.type === "scatter" ? { mode: "nearest", intersect: false } : { mode: "index", intersect: false },
    plugins: { legend: { display: chart.series.length > 1, labels: { color: text } } },
    scales: { x: { ...axis(chart.x_label), stacked: !!chart.stacked }, y: { ...axis(chart.y_label), stacked: !!chart.stacked, beginAtZero: chart.type === "bar" } },
  };
}

function draw(canvas) {
  const source = document.getElementById(canvas.dataset.chart);
  if (!source) return;
  const chart = JSON.parse(source.textContent);
  const drawn = Chart.getChart(canvas);
  if (!drawn) {
    new Chart(canvas, { type: chart.type, data: { labels: chart.labels, datasets: datasets(chart) }, options: options(chart) });
    return;
  }
  drawn.data.labels = chart.labels;
  datasets(chart).forEach((series, i) => (drawn.data.datasets[i] ? Object.assign(drawn.data.datasets[i], series) : drawn.data.datasets.push(series)));
  drawn.options = options(chart);
  drawn.update("none");
}

const drawAll = () => document.querySelectorAll("canvas[data-chart]").forEach(draw);
document.addEventListener("DOMContentLoaded", drawAll);
document.addEventListener("htmx:afterSettle", drawAll);
document.addEventListener("theme", drawAll);
