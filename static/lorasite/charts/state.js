// What a person has set on the charts of this page. It outlives polls and reloads, in this tab of the browser.
const compared = new URLSearchParams(location.search).getAll("name");
const KEY = ["charts", location.pathname, ...compared].join(" ");
const DEFAULTS = {
  axis: "step", // what lies along x: step, epoch, seconds or tokens
  range: null, // {axis, min, max} of the zoom that all curve charts share
  smoothing: 0, // weight of the moving average
  hidden: {}, // labels of hidden series by chart
  log: {}, // by chart: whether its scale is logarithmic
  open: {}, // by chart: whether its table is shown
};

function load() {
  try {
    return { ...DEFAULTS, ...JSON.parse(sessionStorage.getItem(KEY)) };
  } catch {
    return { ...DEFAULTS }; // storage is turned off, or holds something else
  }
}

export const state = load();
const listeners = new Set();

export function onChange(listener) {
  listeners.add(listener);
}

export function change(values) {
  Object.assign(state, values);
  try {
    sessionStorage.setItem(KEY, JSON.stringify(state));
  } catch {
    // Then it lasts as long as the page.
  }
  listeners.forEach((listener) => listener(values));
}
