"use strict";
// Keys: g and a letter go somewhere, a page's own keys press what shows them (data-press), and j, k, x work in lists.

const GO_MS = 1500;
const OFF = "lorasite-keys-off";
const TYPED_IN = "input:not([type=checkbox], [type=radio]), textarea, select";
const keysDialog = document.getElementById("keys");
const keysSwitch = keysDialog.querySelector("[data-keys-switch]");
const rowLinks = () => [...document.querySelectorAll("main .table.list tbody a.stretched")];
let goAt = 0;

function pressed(key) {
  return document.querySelector(`main [data-press="${CSS.escape(key)}"]:not([disabled])`);
}

function nameOf(element) {
  const copy = element.cloneNode(true);
  copy.querySelectorAll("kbd").forEach((key) => key.remove());
  return copy.textContent.trim();
}

function showKeys() {
  const own = document.querySelectorAll("main [data-press]");
  const lines = [...own].map((element) => {
    const [key, name] = [document.createElement("dt"), document.createElement("dd")];
    key.append(Object.assign(document.createElement("kbd"), { textContent: element.dataset.press }));
    name.textContent = nameOf(element);
    return [key, name];
  });
  keysDialog.querySelector("[data-keys-page]").hidden = !lines.length;
  keysDialog.querySelector("[data-keys-page] dl").replaceChildren(...lines.flat());
  keysDialog.querySelector("[data-keys-list]").hidden = !rowLinks().length;
  keysDialog.showModal();
}

function moveInList(step) {
  const links = rowLinks();
  const at = links.findIndex((link) => link.closest("tr").contains(document.activeElement));
  const first = step > 0 ? 0 : links.length - 1;
  links[at < 0 ? first : Math.min(Math.max(at + step, 0), links.length - 1)]?.focus();
}

function goTo(key) {
  document.querySelector(`a[data-key~="${CSS.escape(key)}"]`)?.click();
}

const ACTIONS = {
  "?": showKeys,
  "g": () => { goAt = Date.now(); },
  "/": () => document.querySelector("main input[type=search]")?.focus(),
  "j": () => moveInList(1),
  "k": () => moveInList(-1),
  "x": () => document.activeElement.closest(".table.list tbody tr")?.querySelector("input[type=checkbox]")?.click(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(TYPED_IN)) return;
  if (localStorage.getItem(OFF) || document.querySelector("dialog[open]")) return;
  if (Date.now() - goAt < GO_MS) {
    goAt = 0;
    return goTo(event.key);
  }
  const element = pressed(event.key);
  const action = element ? () => element.click() : ACTIONS[event.key];
  if (!action || (event.key === "Enter" && event.target.closest("a, button, summary"))) return;
  event.preventDefault(); // so that / is not typed into the search
  action();
});

// For those who speak to their computer, or press keys by accident.
keysSwitch.checked = !localStorage.getItem(OFF);
keysSwitch.addEventListener("change", () => {
  if (keysSwitch.checked) localStorage.removeItem(OFF);
  else localStorage.setItem(OFF, "yes");
});
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-show-keys]")) showKeys();
});
