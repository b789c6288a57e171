"use strict";
// The field of the base model: an editable combobox with a list (ARIA Authoring Practices). Without it, a text field remains.
// The form may be replaced as a whole, so everything is looked up when it is needed.

(() => {
  const SEARCH_PAUSE = 400; // ms after the last key before the model hub is searched
  const SHORTEST_SEARCH = 2; // characters
  let searching = 0;
  let searched = "";

  const find = (selector) => document.querySelector(`#base-model ${selector}`.trim());
  const input = () => find("input");
  const list = () => find("[role=listbox]");
  const toggle = () => find("button");
  const options = () => [...list().querySelectorAll("[role=option]:not([hidden])")];
  const isOpen = () => !list().hidden;

  function setUp() {
    if (!find("input") || input().getAttribute("role")) return;
    input().removeAttribute("list"); // the browser's own list would lie over ours
    const attributes = { role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list().id };
    for (const [name, value] of Object.entries(attributes)) input().setAttribute(name, value);
    toggle().hidden = false;
  }

  function open(showAll) {
    list().hidden = false;
    for (const element of [input(), toggle()]) element.setAttribute("aria-expanded", "true");
    filter(showAll ? "" : input().value);
  }

  function close() {
    if (!input() || !isOpen()) return;
    list().hidden = true;
    for (const element of [input(), toggle()]) element.setAttribute("aria-expanded", "false");
    activate(null);
  }

  function filter(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    for (const option of list().querySelectorAll("[role=option]")) {
      const content = `${option.textContent} ${option.dataset.words}`.toLowerCase();
      const isFromHub = option.closest("[data-hub]"); // the hub has chosen it for these words
      option.hidden = !isFromHub && !words.every((word) => content.includes(word));
      option.setAttribute("aria-selected", "false");
    }
    for (const group of list().querySelectorAll("[role=group]:not([data-hub])"))
      group.hidden = !group.querySelector("[role=option]:not([hidden])");
    activate(null);
    announce();
  }

  function announce() {
    const status = find("[role=status]");
    const count = options().length;
    status.textContent = count === 0 ? status.dataset.none : count === 1 ? status.dataset.one : status.dataset.many.replace("{n}", count);
  }

  function activate(option) {
    for (const other of list().querySelectorAll("[aria-selected=true]")) other.setAttribute("aria-selected", "false");
    if (!option) return input().removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    input().setAttribute("aria-activedescendant", option.id);
  }

  function move(step) {
    const all = options();
    if (!all.length) return;
    const at = all.findIndex((option) => option.getAttribute("aria-selected") === "true");
    activate(all[at === -1 ? (step > 0 ? 0 : all.length - 1) : (at + step + all.length) % all.length]);
  }

  function choose(name, revision) {
    const field = document.getElementById("id_model.revision");
    // A revision belongs to one model: the one of the model before must not stay.
    if (field) field.value = revision || "";
    input().value = name;
    close();
    input().dispatchEvent(new Event("change", { bubbles: true }));
  }

  async function search() {
    const text = input().value.trim();
    if (text.length < SHORTEST_SEARCH || text === searched) return;
    searched = text;
    const response = await fetch(`${find("").dataset.search}&q=${encodeURIComponent(text)}`);
    if (!response.ok || text !== searched || !isOpen()) return;
    document.getElementById("base-model-hub").innerHTML = await response.text();
    const group = find("[data-hub]");
    group.hidden = !group.querySelector("[role=option], p");
    announce();
  }

  document.addEventListener("input", (event) => {
    if (event.target !== input()) return;
    find("[data-hub]").hidden = true;
    document.getElementById("base-model-hub").replaceChildren();
    searched = "";
    open(false);
    clearTimeout(searching);
    searching = setTimeout(search, SEARCH_PAUSE);
  });

  document.addEventListener("keydown", (event) => {
    if (event.target !== input() || event.isComposing || event.ctrlKey || event.metaKey) return;
    const active = list().querySelector("[aria-selected=true]");
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (!isOpen()) open(true);
      if (!event.altKey) move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter" && isOpen()) {
      if (active) choose(active.dataset.name, active.dataset.revision);
      else close();
    } else if (event.key === "Escape" && isOpen()) {
      close();
    } else {
      if (event.key === "Tab") close();
      return;
    }
    event.preventDefault();
  });

  // The field would lose the focus to the list before a click counts.
  document.addEventListener("mousedown", (event) => {
    if (event.target.closest("#base-model .listbox, #base-model button")) event.preventDefault();
  });

  document.addEventListener("click", (event) => {
    const option = event.target.closest("#base-model [role=option]");
    const better = event.target.closest("#base-model-notice button");
    if (option) {
      choose(option.dataset.name, option.dataset.revision);
    } else if (event.target.closest("#base-model button")) {
      if (isOpen()) close();
      else open(true);
      input().focus();
    } else if (event.target === input()) {
      if (!isOpen()) open(true);
    } else if (better) {
      event.preventDefault();
      choose(better.form.elements.better_name.value, better.form.elements.better_revision.value);
      input().focus();
    } else if (!event.target.closest("#base-model")) {
      close();
    }
  });

  document.addEventListener("focusout", (event) => {
    if (event.target === input() && event.relatedTarget) close();
  });
  document.addEventListener("htmx:load", setUp);
  setUp();
})();
