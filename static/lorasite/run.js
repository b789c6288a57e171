"use strict";
// The log of a run follows its end until its reader scrolls up, and again once they are back at the end.

const NEAR_PX = 8;
const findLog = () => document.getElementById("log");
const isAtEnd = (log) => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;

let isFollowing = true;

function follow() {
  const log = findLog();
  const box = document.querySelector("[data-follow]");
  if (box) box.checked = isFollowing;
  if (log && isFollowing) log.scrollTop = log.scrollHeight;
}

document.addEventListener("scroll", ({ target }) => {
  if (target !== findLog() || target.scrollHeight <= target.clientHeight) return;
  isFollowing = isAtEnd(target);
  const box = document.querySelector("[data-follow]");
  if (box) box.checked = isFollowing;
}, true); // scroll events do not bubble

document.addEventListener("change", ({ target }) => {
  if (!target.matches("[data-follow]")) return;
  isFollowing = target.checked;
  follow();
});

// New answers replace the tab: what was unfolded stays so.
document.addEventListener("htmx:oobBeforeSwap", ({ detail: { target, fragment } }) => {
  for (const fold of target.querySelectorAll("details[open][id]")) {
    fragment.querySelector(`#${CSS.escape(fold.id)}`)?.setAttribute("open", "");
  }
});

document.addEventListener("htmx:afterSettle", follow);
follow();
