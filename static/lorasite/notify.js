"use strict";
// A message of the browser when the run of this page ends, for whoever has pressed "Notify me".

const notifyButton = document.querySelector("[data-notify]");
const WANTED = `lorasite-notify-${notifyButton.dataset.notify}`;
const hasEnded = () => !document.querySelector("#progress[hx-get]");

function setWanted(isWanted) {
  notifyButton.setAttribute("aria-pressed", isWanted);
  document.body.toggleAttribute("data-poll-hidden", isWanted);
  if (isWanted) sessionStorage.setItem(WANTED, "yes");
  else sessionStorage.removeItem(WANTED);
}

function showMessage() {
  const body = document.querySelector("#progress .verdict, #progress .trouble, #progress .message")?.textContent.trim();
  const message = new Notification(document.title, { body, tag: WANTED });
  message.addEventListener("click", () => window.focus());
}

if ("Notification" in window && window.isSecureContext && !hasEnded()) {
  notifyButton.hidden = false;
  setWanted(Notification.permission === "granted" && sessionStorage.getItem(WANTED) === "yes");
}

notifyButton.addEventListener("click", async () => {
  const isWanted = notifyButton.getAttribute("aria-pressed") === "true";
  const permission = isWanted ? "" : await Notification.requestPermission();
  setWanted(permission === "granted");
  if (permission === "denied") notifyButton.textContent = notifyButton.dataset.blocked;
});

document.addEventListener("htmx:afterSettle", () => {
  if (notifyButton.hidden || !hasEnded()) return;
  if (notifyButton.getAttribute("aria-pressed") === "true") showMessage();
  setWanted(false);
  notifyButton.hidden = true;
});
