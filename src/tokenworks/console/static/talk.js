// The prompt panel: sends a prompt, shows the answer as it streams, and says so when there is none.

import { events } from "./stream.js";
import { NONE, ms, write } from "./format.js";

const at = (id) => document.getElementById(id);
// Said for information: nothing went wrong.
const MILD = new Set(["stopped", "output_limited", "worker_killed"]);
let running = null;
// The worker that serves the running answer, and the one that was killed in the middle of it.
let worker = "";
let killed = "";

// `listener` hears `sent`, `admitted(requestId)` and `ended` of each prompt.
export function start(listener) {
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const prompt = at("prompt").value.trim();
    if (prompt && !running) ask(prompt, listener);
  });
  at("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      at("ask").requestSubmit();
    }
  });
  at("stop").addEventListener("click", () => running?.abort());
  at("kill")?.addEventListener("click", kill);
  for (const sample of document.querySelectorAll(".sample")) {
    sample.addEventListener("click", () => {
      at("prompt").value = sample.textContent;
      at("ask").requestSubmit();
    });
  }
}

async function ask(prompt, listener) {
  running = new AbortController();
  prepare(prompt);
  listener.sent();
  const pace = { sent: performance.now(), first: null, pieces: 0 };
  try {
    const reply = await fetch("/live/chat", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt }),
      signal: running.signal,
    });
    if (reply.status === 401) return location.assign("/");
    if (!reply.ok) return refuse((await reply.json()).error);
    const ended = await relay(reply.body, pace, listener);
    if (!ended) refuse({ code: "answer_broken", message: "The answer broke off before its end." });
  } catch (fault) {
    if (fault.name === "AbortError") refuse({ code: "stopped", message: "You stopped the answer. What was generated is charged." });
    else refuse({ code: "office_unreachable", message: "The office cannot be reached." });
  } finally {
    finish(pace);
    listener.ended();
  }
}

// True once the answer has ended in one of the ways it may end.
async function relay(body, pace, listener) {
  let ended = false;
  for await (const { name, data } of events(body)) {
    if (data === "[DONE]") return true;
    const content = JSON.parse(data);
    if (name === "answer") {
      listener.admitted(content.request_id);
      serves(content.worker);
      if (content.output_limit !== null) limit(content.output_limit);
    } else if (name === "refusal") {
      refuse(content.error, content.status);
      ended = true;
    } else if (name === "broken" && killed) {
      refuse({ code: "worker_killed", message: `You killed ${killed} in the middle of this answer. Its successor closes the request at its last checkpoint; no more is charged.` });
      ended = true;
    } else if (name === "broken" || content.error) {
      refuse(name === "broken" ? content : content.error);
      ended = true;
    } else {
      show(content, pace);
    }
  }
  return ended;
}

function serves(name) {
  worker = name;
  if (at("kill")) at("kill").hidden = !name;
}

async function kill() {
  at("kill").disabled = true;
  killed = worker;
  const reply = await fetch("/live/kill", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ worker }),
  });
  if (reply.status === 401) return location.assign("/");
  if (!reply.ok) {
    killed = "";
    at("kill").disabled = false;
    refuse((await reply.json()).error);
  }
}

function show(chunk, pace) {
  const piece = chunk.choices?.[0]?.delta?.content;
  if (!piece) return;
  pace.first ??= performance.now();
  pace.pieces += 1;
  const box = at("answer");
  const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  at("told").append(piece);
  if (follows) box.scrollTop = box.scrollHeight;
  measure(pace, performance.now());
}

function measure(pace, now) {
  at("pace-first").textContent = pace.first === null ? NONE : ms(Math.round(pace.first - pace.sent));
  at("pace-pieces").textContent = pace.pieces || NONE;
  const seconds = (now - pace.first) / 1000;
  at("pace-rate").textContent = pace.pieces > 3 && seconds > 0 ? ((pace.pieces - 1) / seconds).toFixed(1) : NONE;
}

function prepare(prompt) {
  at("welcome").hidden = true;
  at("refusal").hidden = true;
  at("asked").hidden = false;
  at("asked").textContent = prompt;
  at("told").hidden = false;
  at("told").textContent = "";
  at("told").classList.add("running");
  at("prompt").value = "";
  at("send").hidden = true;
  at("stop").hidden = false;
  killed = "";
  if (at("kill")) at("kill").disabled = false;
  at("answer").setAttribute("aria-busy", "true");
  for (const id of ["pace-first", "pace-pieces", "pace-rate", "pace-whole"]) at(id).textContent = NONE;
}

function finish(pace) {
  running = null;
  at("told").classList.remove("running");
  at("send").hidden = false;
  at("stop").hidden = true;
  serves("");
  at("answer").removeAttribute("aria-busy");
  if (pace.first !== null) write(at("pace-whole"), ms(Math.round(performance.now() - pace.sent)));
  at("prompt").focus();
}

function refuse(error, status) {
  const [title, text] = at("refusal").children;
  title.textContent = [status, error.code].filter(Boolean).join(" ");
  text.textContent = error.message;
  at("refusal").classList.toggle("mild", MILD.has(error.code));
  at("refusal").hidden = false;
  at("refusal").scrollIntoView({ block: "nearest" });
}

function limit(tokens) {
  refuse({ code: "output_limited", message: `The balance covers an answer of at most ${tokens} tokens.` });
}
