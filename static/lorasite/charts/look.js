// Colours, dashes and numbers of the charts. The colours are custom properties of charts.css.
const HUES = 8;
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [14, 4], [5, 2], [1, 4], [9, 3, 2, 3, 2, 3]];
const POINTS = ["circle", "triangle", "rect", "rectRot", "star", "crossRot", "cross", "rectRounded"];
export const BASELINE_DASHES = [[3, 5], [10, 5], [1, 3]];
const language = document.documentElement.lang || "en";
const precise = new Intl.NumberFormat(language, { maximumSignificantDigits: 5 });
const counted = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat(language, { notation: "compact", maximumSignificantDigits: 3 });

const property = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const colour = (hue) => property(`--hue-${hue % HUES}`);
export const faint = (hex) => `${hex}70`; // the custom properties are written as #rrggbb
export const dash = (hue) => DASHES[hue % HUES];
export const pointStyle = (hue) => POINTS[hue % HUES];
export const page = () => ({ text: property("--muted"), strong: property("--text"), grid: property("--line"), back: property("--bg"), accent: property("--accent") });
export const font = () => getComputedStyle(document.body).fontFamily;

const LEAST = 0.001; // what is smaller is written with an exponent, which fits beside the axis

export function formatValue(value) {
  if (value === 0 || Math.abs(value) >= LEAST) return precise.format(value);
  return value.toExponential(3).replace(/\.?0*e/, "e");
}

// Returns a place on an axis as text. `span`, the width of what is shown, decides how exact it must be.
export function formatPlace(axis, place, span = Infinity) {
  if (axis === "seconds") return formatTime(place, span);
  if (axis === "epoch") return precise.format(Number(place.toPrecision(4)));
  if (axis === "tokens" && span > 100_000) return compact.format(place);
  return span < 10 ? precise.format(place) : counted.format(place);
}

function formatTime(seconds, span) {
  if (span < 10) return `${precise.format(Number(seconds.toFixed(2)))} s`;
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), (seconds % 3600) / 60];
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${Math.floor(minutes)}:${two(seconds % 60)}`;
}
