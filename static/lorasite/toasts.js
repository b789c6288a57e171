"use strict";
// Messages stand above the page as toasts. Those with an action or an error stay until they are dismissed.

const SHOWN_MS = 8000;
const toasts = document.getElementById("toasts");
const failure = document.getElementById("toast-failed");

function dismissLater(toast) {
  if ("stays" in toast.dataset) return;
  let timer;
  const stop = () => clearTimeout(timer);
  const start = () => {
    stop();
    timer = setTimeout(() => toast.remove(), SHOWN_MS);
  };
  for (const event of ["pointerenter", "focusin"]) toast.addEventListener(event, stop);
  for (const event of ["pointerleave", "focusout"]) toast.addEventListener(event, start);
  start();
}

const observer = new MutationObserver((records) => {
  const added = records.flatMap(({ addedNodes }) => [...addedNodes]);
  added.filter((node) => node.matches?.(".toast")).forEach(dismissLater);
});
observer.observe(toasts, { childList: true });
// A screen reader reads what is added to a live region, not what is there when the page opens.
setTimeout(() => toasts.replaceChildren(...toasts.children), 100);

toasts.addEventListener("click", ({ target }) => {
  if (!target.closest("[data-dismiss]")) return;
  target.closest(".toast").remove();
  document.getElementById("main").focus({ preventScroll: true });
});

function showFailure(text) {
  const shown = [...toasts.children].find((toast) => toast.firstElementChild.textContent === text);
  if (shown) return; // polls fail again and again
  const toast = failure.content.cloneNode(true);
  toast.querySelector("p").textContent = text;
  toasts.append(toast);
}

// What htmx asked for and did not get leaves the page as it is; the reason is the heading of the page of the error.
document.addEventListener("htmx:responseError", ({ detail }) => {
  if (detail.elt.closest("[data-background]") || detail.xhr.status === 401) return; // 401: session.js
  const page = new DOMParser().parseFromString(detail.xhr.responseText, "text/html");
  showFailure(page.querySelector("main h1")?.textContent || failure.dataset.failed);
});
document.addEventListener("htmx:sendError", () => showFailure(failure.dataset.away));
document.addEventListener("htmx:afterRequest", ({ detail }) => {
  if (!detail.successful) return;
  [...toasts.children].find((toast) => toast.firstElementChild.textContent === failure.dataset.away)?.remove();
});

// A button that is disabled while it waits loses the focus; after a failure it has it again.
let waiting = null;
document.addEventListener("htmx:beforeRequest", ({ detail }) => {
  if (!detail.elt.closest("[data-background]")) waiting = document.activeElement;
});
document.addEventListener("htmx:afterRequest", ({ detail }) => {
  if (!detail.successful && document.activeElement === document.body) waiting?.focus();
});
