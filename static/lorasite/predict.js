"use strict";
// Ctrl+Enter asks. What was typed, and the texts that were asked, stay in this tab when the page is loaded again; the server keeps none.

const ask = document.getElementById("ask");
const texts = () => [...(ask?.querySelectorAll("textarea") ?? [])];
const keyOf = (field) => `lorasite-predict-${field.name}`;

ask?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask.requestSubmit();
});
ask?.addEventListener("input", ({ target }) => {
  if (target.matches("textarea")) sessionStorage.setItem(keyOf(target), target.value);
});
texts().forEach((field) => (field.value ||= sessionStorage.getItem(keyOf(field)) ?? ""));

const ASKED = "lorasite-predict-asked", MOST_ASKED = 10;
const askedTexts = document.getElementById("asked");
const readAsked = () => JSON.parse(sessionStorage.getItem(ASKED) ?? "[]"); // newest first, each a text by the name of its field

function showAsked() {
  const entries = readAsked();
  askedTexts.hidden = !entries.length;
  askedTexts.querySelector("ol").replaceChildren(...entries.map((entry, number) => {
    const item = askedTexts.querySelector("template").content.cloneNode(true);
    const button = item.querySelector("button");
    button.textContent = Object.values(entry).join(" · ");
    button.dataset.asked = number;
    return item;
  }));
}

function remember() {
  const entry = Object.fromEntries(texts().map(({ name, value }) => [name, value]));
  const others = readAsked().filter((other) => JSON.stringify(other) !== JSON.stringify(entry));
  sessionStorage.setItem(ASKED, JSON.stringify([entry, ...others].slice(0, MOST_ASKED)));
  showAsked();
}

if (askedTexts) {
  ask.addEventListener("htmx:afterRequest", ({ detail }) => detail.successful && detail.requestConfig.verb === "post" && remember());
  askedTexts.addEventListener("click", ({ target }) => {
    const entry = readAsked()[target.closest("[data-asked]")?.dataset.asked];
    if (!entry) return;
    for (const field of texts()) {
      field.value = entry[field.name] ?? field.value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    ask.querySelector("textarea").focus();
  });
  document.getElementById("forget-asked").addEventListener("click", () => {
    sessionStorage.removeItem(ASKED);
    showAsked();
    ask.querySelector("textarea").focus();
  });
  showAsked();
}
