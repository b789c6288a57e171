"use strict";
// A session that ends loses nothing: a dialog opens over the page, and a form that was sent is filled again after signing in.

const DRAFT = "lorasite-draft", USER = document.body.dataset.user;
// Nothing of one person is left in a tab in which another signs in.
if (USER) {
  if ((sessionStorage.getItem("lorasite-user") ?? USER) !== USER) sessionStorage.clear();
  sessionStorage.setItem("lorasite-user", USER);
}

const here = () => location.pathname + location.search;
const forms = () => [...document.querySelectorAll("main form[method=post]:not(#toasts *)")];

// The page's tokens are of the session that it was made in; after signing in anew, only the cookie's is right.
function token() {
  const name = document.body.dataset.csrfCookie + "=";
  return document.cookie.split("; ").find((cookie) => cookie.startsWith(name))?.slice(name.length);
}

function fields(form) {
  return [...form.elements].filter(({ name, type }) => name && !["hidden", "password", "file", "submit", "button"].includes(type));
}

function keep(form) {
  const values = fields(form).map((field) => [field.name, field.value, field.checked]);
  sessionStorage.setItem(DRAFT, JSON.stringify({ user: USER, page: here(), form: forms().indexOf(form), values }));
}

function fill(form, values) {
  fields(form).forEach((field, i) => {
    const [name, value, checked] = values[i] || [];
    if (name !== field.name) return;
    if (["checkbox", "radio"].includes(field.type)) field.checked = checked;
    else field.value = value;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  });
  form.closest("details")?.setAttribute("open", "");
  form.prepend(document.getElementById("form-restored").content.cloneNode(true));
}

// Somebody who has to sign in after sending a form was not heard; anybody else was.
function restore() {
  const draft = JSON.parse(sessionStorage.getItem(DRAFT) || "null");
  if (!draft) return;
  if (!USER) {
    sessionStorage.setItem(DRAFT, JSON.stringify({ ...draft, unheard: true }));
    return;
  }
  if (draft.unheard && draft.user === USER && draft.page !== here()) return; // on the way back, as for a second factor
  sessionStorage.removeItem(DRAFT);
  if (draft.unheard && draft.user === USER && forms()[draft.form]) fill(forms()[draft.form], draft.values);
}

const dialog = document.getElementById("session-ended");

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.getAttribute("method") !== "post") return; // form.method may be a field of that name
  const hidden = form.elements.csrfmiddlewaretoken;
  if (hidden && token()) hidden.value = token();
  if (!USER || form.hasAttribute("hx-post")) return;
  if (form.hasAttribute("data-signs-out")) sessionStorage.clear();
  else if (forms().includes(form)) keep(form);
  else sessionStorage.removeItem(DRAFT);
}, true); // before htmx collects what it sends
document.addEventListener("htmx:configRequest", (event) => {
  if (token()) event.detail.headers["x-csrftoken"] = token();
});
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.elt.closest("[data-background]")) return; // nobody asked for this, so nobody is interrupted
  if (event.detail.xhr.status === 401 && dialog && !dialog.open) dialog.showModal();
});
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful && dialog?.open) dialog.close();
});
// A page that asks for nothing by itself looks, when one returns to it, whether there is a session again.
document.addEventListener("visibilitychange", async () => {
  if (document.hidden || !dialog?.open) return;
  const answer = await fetch(location.href, { method: "HEAD", redirect: "manual" });
  if (answer.ok) dialog.close();
});
restore();
