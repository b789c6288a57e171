"use strict";
// Ctrl+K opens the search over any page; without this script, its link leads to the page of the search.

const palette = document.getElementById("palette");
const field = palette.querySelector("input");
const list = document.getElementById("palette-list");
const options = () => [...list.querySelectorAll("[role=option]")];
const chosen = () => list.querySelector("[aria-selected=true]");

function openPalette() {
  if (palette.open) return;
  document.querySelector("[popover]:popover-open")?.hidePopover();
  palette.showModal();
  field.select();
  htmx.trigger(field, "palette-open");
}

function choose(option) {
  chosen()?.setAttribute("aria-selected", "false");
  if (!option) return field.removeAttribute("aria-activedescendant");
  option.setAttribute("aria-selected", "true");
  option.scrollIntoView({ block: "nearest" });
  field.setAttribute("aria-activedescendant", option.id);
}

function move(step) {
  const all = options();
  choose(all[(all.indexOf(chosen()) + step + all.length) % all.length]);
}

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k" && !event.altKey && !event.shiftKey) {
    event.preventDefault();
    openPalette();
  }
});
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-palette]") && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    openPalette();
  } else if (event.target === palette) {
    palette.close(); // a click beside it
  }
});
field.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) {
    event.preventDefault();
    move(step);
  } else if (event.key === "Enter" && chosen()) {
    event.preventDefault();
    chosen().click();
  }
});
list.addEventListener("htmx:afterSwap", () => choose(options()[0]));
