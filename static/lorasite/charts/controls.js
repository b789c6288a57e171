// The controls that all curve charts of a page share: axis, smoothing, and back to everything.
import { change, onChange, state } from "./state.js";

const bound = new WeakSet();

export function bindControls() {
  document.querySelectorAll("[data-chart-controls]").forEach((bar) => {
    if (bound.has(bar)) return;
    bound.add(bar);
    const axis = bar.querySelector("[data-chart-axis]");
    const smoothing = bar.querySelector("[data-chart-smoothing]");
    const reset = bar.querySelector("[data-chart-reset]");
    axis.addEventListener("change", () => change({ axis: axis.value, range: null }));
    smoothing.addEventListener("input", () => change({ smoothing: Number(smoothing.value) }));
    reset.addEventListener("click", () => change({ range: null }));

    const show = () => {
      if (!bar.isConnected) return;
      axis.value = [...axis.options].some(({ value }) => value === state.axis) ? state.axis : "step";
      smoothing.value = state.smoothing;
      bar.querySelector("output").value = state.smoothing;
      reset.disabled = !state.range;
    };
    onChange(show);
    show();
    bar.dataset.ready = "";
  });
}
