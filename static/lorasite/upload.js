"use strict";
// How far a file is sent; without this script the browser sends the form itself.

function show(answer) {
  const page = new DOMParser().parseFromString(answer.responseText, "text/html");
  document.querySelector("main").replaceWith(page.querySelector("main"));
  document.querySelector("main [role=alert]")?.scrollIntoView();
}

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-upload]");
  if (!form) return;
  event.preventDefault();
  const bar = form.querySelector("progress"), sending = new XMLHttpRequest();
  form.querySelector("[data-sending]").hidden = false;
  form.querySelector("button").disabled = true;
  sending.open("POST", location.href);
  sending.upload.onprogress = ({ loaded, total }) => (bar.value = loaded / total);
  sending.onload = () => (sending.status < 400 ? location.assign(sending.responseURL) : show(sending));
  sending.onerror = () => form.submit();
  sending.send(new FormData(form));
});
