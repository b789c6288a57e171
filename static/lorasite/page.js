"use strict";
// Theme, keys and copying; every page works without them.

const root = document.documentElement;
const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function switchTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  document.cookie = `lorasite_theme=${root.dataset.theme};path=/;max-age=31536000;samesite=lax`;
  document.dispatchEvent(new Event("theme"));
}

async function copy(button) {
  const text = document.querySelector(button.dataset.copy).textContent;
  await navigator.clipboard.writeText(text);
  const word = button.textContent;
  button.textContent = "✓ " + word;
  setTimeout(() => (button.textContent = word), 1500);
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-theme-switch], [data-copy]");
  if (!target) return;
  if (target.dataset.copy) copy(target);
  else switchTheme();
});

let went = 0;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
  if (event.key === "g") {
    went = Date.now();
  } else if (event.key === "?") {
    document.getElementById("keys").showModal();
  } else if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); }
  } else if (Date.now() - went < 1500) {
    document.querySelector(`a[data-key="${CSS.escape(event.key)}"]`)?.click();
  }
});
