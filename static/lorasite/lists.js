"use strict";
// Ticks of a list survive paging, sorting and searching: sessionStorage keeps their names. Without this script, a form sends those of its page.

const chosenKey = (form) => `lorasite-ticks:${document.body.dataset.user}:${form.dataset.selection}`;
const readTicks = (form) => new Set(JSON.parse(sessionStorage.getItem(chosenKey(form)) || "[]"));
const writeTicks = (form, names) => sessionStorage.setItem(chosenKey(form), JSON.stringify([...names]));
const boxesOf = (form) => [...form.querySelectorAll("input[type=checkbox][name=name]")];
let lastBox = null; // where a range that is ticked with Shift begins

function showTicks(form) {
  const names = readTicks(form), boxes = boxesOf(form);
  boxes.forEach((box) => (box.checked = names.has(box.value)));
  form.querySelectorAll("[data-fewest]").forEach((button) => {
    button.disabled = names.size < button.dataset.fewest || names.size > (button.dataset.most || Infinity);
  });
  const count = form.querySelector("[data-count]"), all = form.querySelector("[data-all]"), clear = form.querySelector("[data-clear]");
  if (!count) return;
  count.hidden = clear.hidden = !names.size;
  count.querySelector("strong").textContent = names.size;
  all.hidden = false;
  all.checked = boxes.length > 0 && boxes.every((box) => box.checked);
  all.indeterminate = !all.checked && boxes.some((box) => box.checked);
  form.classList.toggle("has-selection", names.size > 0);
}

function tick(form, boxes, checked) {
  const names = readTicks(form);
  boxes.forEach((box) => names[checked ? "add" : "delete"](box.value));
  writeTicks(form, names);
  showTicks(form);
}

document.addEventListener("click", (event) => {
  const form = event.target.closest("form[data-selection]");
  if (!form) return;
  if (event.target.matches("[data-clear]")) {
    writeTicks(form, []);
    showTicks(form);
  } else if (event.target.matches("[data-all]")) {
    tick(form, boxesOf(form), event.target.checked);
  } else if (event.target.matches("[name=name]")) {
    const boxes = boxesOf(form), here = boxes.indexOf(event.target), before = event.shiftKey ? boxes.indexOf(lastBox) : here;
    tick(form, before < 0 ? [event.target] : boxes.slice(Math.min(here, before), Math.max(here, before) + 1), event.target.checked);
    lastBox = event.target;
  }
});
document.addEventListener("formdata", (event) => {
  if (!event.target.dataset.selection) return;
  const here = new Set(event.formData.getAll("name"));
  readTicks(event.target).forEach((name) => here.has(name) || event.formData.append("name", name));
});
// What is deleted is ticked no more; after anything else the ticks stay for what is done next.
document.addEventListener("submit", (event) => {
  if (!event.target.dataset.selection || event.submitter?.dataset.done === undefined) return;
  setTimeout(() => sessionStorage.removeItem(chosenKey(event.target))); // once the form is on its way
});

const showAllTicks = () => document.querySelectorAll("form[data-selection]").forEach(showTicks);
showAllTicks();
document.addEventListener("htmx:afterSwap", showAllTicks);
addEventListener("pageshow", showAllTicks); // back from another page, whose buttons may have cleared them
