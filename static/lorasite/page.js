"use strict";
// Theme, copying, tables and polls; every page works without them.

const root = document.documentElement;
const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function switchTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  document.cookie = `lorasite_theme=${root.dataset.theme};path=/;max-age=31536000;samesite=lax`;
  document.dispatchEvent(new Event("theme"));
}

// Times come in UTC. A page shows them as its reader's clock does, recent ones as "5 minutes ago", with the exact time on hover.
const RECENT_S = 24 * 3600;
const UNITS = [["hour", 3600], ["minute", 60], ["second", 1]];
const zone = new Intl.DateTimeFormat(root.lang, { timeZoneName: "short", hour: "numeric" });
const ago = new Intl.RelativeTimeFormat(root.lang, { numeric: "always" });

function localTime(at, withSeconds) {
  const local = new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().replace("T", " ");
  return local.slice(0, withSeconds ? 19 : 16);
}

function showTime(time) {
  if ("clock" in time.dataset && time.title) return; // a line of a log, which may have a thousand
  const at = new Date(time.dateTime), passed = (Date.now() - at) / 1000;
  time.dataset.seconds ??= /:\d\d:/.test(time.textContent) ? "yes" : "";
  const text = localTime(at, time.dataset.seconds);
  time.title = `${localTime(at, true)} ${zone.formatToParts(at).find(({ type }) => type === "timeZoneName").value}`;
  const [unit, length] = UNITS.find(([, seconds]) => passed >= seconds) || UNITS[2];
  if ("clock" in time.dataset) time.textContent = localTime(at, true).slice(11);
  else time.textContent = "recent" in time.dataset && passed >= 0 && passed < RECENT_S ? ago.format(-Math.floor(passed / length), unit) : text;
}

const showTimes = () => document.querySelectorAll("time[datetime]").forEach(showTime);
showTimes();
setInterval(showTimes, 60_000);
document.addEventListener("htmx:afterSwap", showTimes);

// Addresses of earlier releases name a part of a page that is a tab today.
const tabOfAnchor = document.querySelector(`.tabs a[id="${CSS.escape(location.hash.slice(1))}"]`);
if (tabOfAnchor) location.replace(tabOfAnchor.href);

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

// What does not fit into its place scrolls, also by keyboard: wide tables, high texts. The head of any other table stays in sight.
function fit(frame) {
  const scrolls = frame.scrollWidth > frame.clientWidth + 1 || frame.scrollHeight > frame.clientHeight + 1;
  frame.classList.toggle("fits", !scrolls);
  if (scrolls) frame.tabIndex = 0;
  else frame.removeAttribute("tabindex");
}

const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => fit(target)));
const watchSizes = () => document.querySelectorAll(".table-scroll, div.words").forEach((frame) => { fit(frame); sizes.observe(frame); });
watchSizes();
document.addEventListener("htmx:afterSwap", watchSizes);

// A tab that nobody sees does not poll, unless somebody waits for its message (notify.js).
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && !("pollHidden" in document.body.dataset) && event.detail.elt.getAttribute("hx-trigger")?.startsWith("every")) event.preventDefault();
});
