"use strict";
// Answers are streamed into the page, one stream for each model. Without this script, the form brings them whole.

const chat = document.getElementById("chat");

function startChat() {
  const [list, problem, send, stop] = ["exchanges", "chat-error", "send", "stop"].map((id) => document.getElementById(id));
  const { message, exchanges: field, csrfmiddlewaretoken } = chat.elements;
  const KEPT = "lorasite-chat";
  let conversation = JSON.parse(field.value);
  let reading = null; // ends the streams that are being read

  const clone = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);
  const models = () => [chat.elements.model.value, chat.elements.second.value].filter(Boolean);

  function addAnswer(item, model, text) {
    const answer = clone("answer");
    answer.querySelector("[data-model]").textContent = model;
    answer.querySelector("[data-text]").textContent = text;
    item.querySelector(".answers").append(answer);
    return answer;
  }

  function addExchange({ question, answers }) {
    const item = clone("exchange");
    item.querySelector("[data-question]").textContent = question;
    answers.forEach(({ model, text }) => addAnswer(item, model, text));
    list.append(item);
    return item;
  }

  // What the form and this tab have is what the page shows.
  function keep() {
    field.value = JSON.stringify(conversation);
    sessionStorage.setItem(KEPT, JSON.stringify({ conversation, message: message.value }));
    document.getElementById("last").hidden = !conversation.length || Boolean(reading);
  }

  function complain(text) {
    problem.textContent = text;
    problem.hidden = !text;
  }

  function setBusy(busy) {
    list.setAttribute("aria-busy", busy); // so that an answer is read out once it is complete
    stop.hidden = !busy;
    send.hidden = busy;
    document.getElementById("code").hidden = busy || !conversation.length;
    keep();
  }

  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (waiting + value).split("\n\n");
      waiting = parts.pop();
      for (const part of parts) if (part !== "data: [DONE]") yield JSON.parse(part.slice("data: ".length));
    }
  }

  async function problemOf(response) {
    if (response.status === 401) document.getElementById("session-ended")?.showModal();
    const body = await response.json().catch(() => ({}));
    return body.detail || chat.dataset.away;
  }

  // Fills one answer and returns its text; what kept the model from answering stands in its place.
  async function stream(form, column, answer, signal) {
    const [text, error] = [answer.querySelector("[data-text]"), answer.querySelector("[data-error]")];
    const body = new FormData();
    form.forEach((value, name) => body.append(name, value));
    body.set("column", column);
    answer.setAttribute("aria-busy", "true");
    let reason = "";
    try {
      const headers = { "X-CSRFToken": csrfmiddlewaretoken.value, "HX-Request": "true", Accept: "text/event-stream" };
      const response = await fetch(chat.dataset.stream, { method: "POST", body, headers, signal });
      if (!response.ok) reason = await problemOf(response);
      else for await (const event of events(response)) {
        if (event.error) reason = event.error.message;
        text.append(event.choices?.[0]?.delta?.content ?? "");
        follow();
      }
      if (!reason && !text.textContent) reason = chat.dataset.empty;
    } catch {
      reason = signal.aborted ? chat.dataset.stopped : chat.dataset.away;
    }
    answer.removeAttribute("aria-busy");
    error.className = signal.aborted ? "help" : "field-error";
    error.textContent = reason;
    error.hidden = !reason;
    return text.textContent;
  }

  // The end of an answer stays in sight, unless its reader has scrolled back.
  function follow() {
    const rest = document.documentElement.scrollHeight - innerHeight - scrollY;
    if (rest < 160) scrollTo({ top: document.documentElement.scrollHeight });
  }

  async function ask(action) {
    const form = new FormData(chat);
    form.set("do", action);
    complain("");
    if (action === "send") {
      conversation.push({ question: message.value.trim(), answers: [] });
      addExchange(conversation.at(-1));
      message.value = "";
    }
    const [exchange, item] = [conversation.at(-1), list.lastElementChild];
    item.querySelector(".answers").replaceChildren();
    const names = models();
    const answers = names.map((name) => addAnswer(item, name, ""));
    reading = new AbortController();
    setBusy(true);
    follow();
    const texts = await Promise.all(answers.map((answer, column) => stream(form, column, answer, reading.signal)));
    exchange.answers = names.map((model, column) => ({ model, text: texts[column] }));
    const stopped = reading.signal.aborted;
    reading = null;
    if (!stopped && action === "send" && !texts.some(Boolean)) {
      const reasons = answers.map((answer) => answer.querySelector("[data-error]").textContent);
      complain([...new Set(reasons)].join(" "));
      takeBack();
    }
    setBusy(false);
    showCode();
  }

  function takeBack() {
    const { question } = conversation.pop();
    message.value ||= question; // or what was typed meanwhile
    list.lastElementChild.remove();
    message.focus();
  }

  // The request of the last answer as code, from the same page.
  function showCode() {
    if (!conversation.length) return;
    htmx.ajax("POST", chat.getAttribute("action"), { source: chat, values: { do: "code" }, target: "#code", select: "#code", swap: "outerHTML" });
  }

  chat.addEventListener("submit", (event) => {
    event.preventDefault();
    if (reading) return;
    const action = event.submitter?.value || "send";
    if (action === "edit") {
      message.value = "";
      takeBack();
      setBusy(false);
    } else if (action === "again" || message.value.trim()) ask(action);
  });
  message.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    chat.requestSubmit(send);
  });
  message.addEventListener("input", keep);
  stop.addEventListener("click", () => { reading?.abort(); message.focus(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && event.target === message) reading?.abort(); });
  document.getElementById("new-chat").addEventListener("click", () => sessionStorage.removeItem(KEPT));

  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  if (kept && !conversation.length) {
    conversation = kept.conversation;
    conversation.forEach(addExchange);
    message.value ||= kept.message;
    keep();
  }
  message.required = false; // it is empty while an answer comes, and the form is sent for other reasons, too
  chat.querySelector("[data-keys]").hidden = false;
}

if (chat) startChat();
