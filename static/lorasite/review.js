"use strict";
// A key presses the button that shows it; after each answer the next text has the focus, so that a screen reader reads it.

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
  if (event.key === "Enter" && event.target.closest("a, button, summary")) return; // it presses what has the focus
  document.querySelector(`button[data-press="${CSS.escape(event.key)}"]`)?.click();
});

document.addEventListener("htmx:afterSettle", () => document.getElementById("suspect")?.focus());
