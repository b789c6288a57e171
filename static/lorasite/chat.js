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

  const kept = () => JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  const settings = () => [...chat.elements].filter((element) => element.name && element.matches("input:not([type=hidden]), select, textarea"));

  function store(content) {
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(content));
    } catch { /* Longer than a tab may keep: the conversation stays in the page. */ }
  }

  // What the form and this tab have is what the page shows.
  function keep() {
    field.value = JSON.stringify(conversation);
    const values = settings().map((element) => [element.name, element.type === "checkbox" ? element.checked : element.value]);
    store({ conversation, values: Object.fromEntries(values) });
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

  // The end of an answer stays in sight, unless its reader has scrolled back after asking.
  function follow(hasAsked = false) {
    const rest = document.documentElement.scrollHeight - innerHeight - scrollY;
    if (hasAsked || rest < 160) scrollTo({ top: document.documentElement.scrollHeight });
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
    follow(true);
    const texts = await Promise.all(answers.map((answer, column) => stream(form, column, answer, reading.signal)));
    exchange.answers = names.map((model, column) => ({ model, text: texts[column] }));
    const stopped = reading.signal.aborted;
    reading = null;
    if (!stopped && action === "send" && !texts.some(Boolean)) {
      const reasons = answers.map((answer, column) => {
        const reason = answer.querySelector("[data-error]").textContent;
        return names.length > 1 ? `${names[column]}: ${reason}` : reason;
      });
      complain([...new Set(reasons)].join(" "));
      takeBack();
    }
    setBusy(false);
    follow();
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
    if (event.submitter?.value === "download") return;
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
  chat.addEventListener("input", keep);
  stop.addEventListener("click", () => { reading?.abort(); message.focus(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && event.target === message) reading?.abort(); });
  // A new conversation keeps model and settings.
  document.getElementById("new-chat").addEventListener("click", () => store({ conversation: [], values: { ...kept()?.values, message: "" } }));

  // Fills in what was entered before. Of a page that a link has opened, what its address says stays.
  function restore({ conversation: earlier, values }) {
    const isReload = performance.getEntriesByType("navigation")[0]?.type === "reload";
    for (const element of settings()) {
      const value = values?.[element.name];
      const isGiven = !isReload && new URLSearchParams(location.search).get(element.name);
      if (value === undefined || isGiven) continue;
      if (element.type === "checkbox") element.checked = value;
      else if (!element.matches("select") || [...element.options].some((option) => option.value === value)) element.value = value;
    }
    const details = document.getElementById("system").closest("details");
    details.open ||= settings().some((element) => details.contains(element) && (element.type === "checkbox" ? element.checked : element.value));
    conversation = earlier;
    conversation.forEach(addExchange);
    setBusy(false);
    showCode();
  }

  message.required = false; // it is empty while an answer comes, and the form is sent for other reasons, too
  if (kept() && !conversation.length) restore(kept());
  chat.querySelector("[data-keys]").hidden = false;
}

if (chat) startChat();
