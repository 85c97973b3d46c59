// A chat box on the gateway's chat completions. The session logs the user in; the CSRF token of the
// form shows that the request comes from this page.

const form = document.getElementById("chat");
const question = document.getElementById("question");
const send = document.getElementById("send");
const log = document.getElementById("log");
const error = document.getElementById("error");
const fresh = document.getElementById("new");

let history = [];
let running = null; // the AbortController of the answer that is being written

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else if (question.value.trim()) ask(question.value.trim());
});

question.addEventListener("keydown", (event) => {
  // While an input method composes a word, Enter ends the word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) form.requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});

fresh.addEventListener("click", () => {
  running?.abort();
  history = [];
  log.replaceChildren();
  error.textContent = "";
  fresh.hidden = true;
  question.focus();
});

async function ask(text) {
  const mine = { role: "user", content: text };
  const messages = (history = [...history, mine]);
  const bubbles = [bubble("user", text), bubble("thoughts"), bubble("assistant")];
  const [, thoughts, answer] = bubbles;
  thoughts.hidden = true;
  error.textContent = "";
  question.value = "";
  fresh.hidden = false;
  const control = (running = new AbortController());
  send.textContent = "Stop";
  question.required = false;
  answer.ariaBusy = "true"; // screen readers read the answer once, when it is whole

  let failure = "";
  try {
    for await (const delta of deltas(messages, control.signal)) {
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      if (delta.reasoning_content) {
        thoughts.hidden = false;
        thoughts.append(delta.reasoning_content);
      }
      answer.append(delta.content ?? "");
      if (atEnd) log.scrollTop = log.scrollHeight;
    }
    if (!answer.textContent) failure = "The model gave no answer. Ask again, or in other words.";
  } catch (reason) {
    if (!control.signal.aborted) failure = reason.message;
  }
  answer.ariaBusy = "false";
  running = null;
  send.textContent = "Send";
  question.required = true;

  if (history !== messages) return; // a new chat has begun
  error.textContent = failure;
  if (answer.textContent && !failure) {
    history = [...messages, { role: "assistant", content: answer.textContent }];
    return;
  }
  history = messages.slice(0, -1);
  bubbles.forEach((one) => one.remove());
  fresh.hidden = !history.length;
  question.value ||= text;
}

function bubble(role, text = "") {
  const made = document.createElement("div");
  made.className = role;
  made.textContent = text;
  log.append(made);
  log.scrollTop = log.scrollHeight;
  return made;
}

async function* deltas(messages, signal) {
  const response = await fetch(form.dataset.url, {
    method: "POST",
    signal,
    headers: {
      "Content-Type": "application/json",
      "X-CSRFToken": form.elements.csrfmiddlewaretoken.value,
    },
    body: JSON.stringify({ model: form.dataset.model, messages, stream: true }),
  }).catch((reason) => {
    throw signal.aborted ? reason : new Error("The site does not answer. Is it still running?");
  });
  if (!response.ok) {
    const answer = await response.json().catch(() => null);
    throw new Error(answer?.error?.message ?? `The site answered with the status ${response.status}.`);
  }
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    if (chunk.choices.length) yield chunk.choices[0].delta;
  }
  throw new Error("The answer was cut off. Ask again.");
}

// The data of each server-sent event; the gateway writes each on one line.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice("data: ".length);
  }
}
