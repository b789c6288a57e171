"use strict";
// Ctrl+Enter asks, and what was typed stays in this tab when the page is loaded again.

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
