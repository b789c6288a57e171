"use strict";
// After each answer the next text has the focus, so that a screen reader reads it. keys.js presses the buttons.

document.addEventListener("htmx:afterSettle", () => document.getElementById("suspect")?.focus());
