"use strict";
// Texts of models become nodes by textContent only; the page's policy lets no other script run in any case.
const at = id => document.getElementById(id);
const make = (name, text, kind) => {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
};
const size = bytes => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1000 && unit < 4; unit++) bytes /= 1024;
  return `${bytes < 10 && unit ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
};
const span = seconds =>
  seconds < 60 ? `${seconds} s` : seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

// ---- asking the server

let asking = null; // the dialog's promise, while it is open
let refused = false; // nobody is asked twice unless he sends something

const askForKey = () => asking ??= new Promise((done, fail) => {
  at("key").value = "";
  at("ask").returnValue = "";
  at("ask").addEventListener("close", () => {
    asking = null;
    refused = at("ask").returnValue !== "given";
    if (refused) return fail(new Error("this server asks for a key"));
    sessionStorage.setItem("key", at("key").value.trim());
    done();
  }, { once: true });
  at("ask").showModal();
});

async function ask(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem("key");
    const headers = { "Content-Type": "application/json" };
    if (key) headers.Authorization = `Bearer ${key}`;
    const answer = await fetch(path, { ...options, headers });
    if (answer.status !== 401 || (refused && !options.method)) return answer;
    await askForKey();
  }
}

async function json(path) {
  const answer = await ask(path);
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(problem(body, answer.status));
  return body;
}

const problem = (body, status) => body?.error?.message ?? body?.error ?? `the server answered ${status}`;

// ---- status and models

async function status() {
  if (document.hidden || asking) return;
  try {
    const now = await json("/status");
    const used = now.memory_bytes - now.memory_available_bytes;
    at("used").style.width = `${now.memory_bytes ? 100 * used / now.memory_bytes : 0}%`;
    at("memory").textContent = `${size(now.memory_available_bytes)} of ${size(now.memory_bytes)} free`;
    const queue = now.busy || now.waiting
      ? `${count(now.busy, "reply", "replies")} being made, ${now.waiting} waiting` : "idle";
    at("summary").textContent = `${queue} · up ${span(now.uptime_seconds)} · ${now.version}`;
    at("dot").className = "dot on";
    at("loaded").replaceChildren(...now.models.map(loaded));
    if (!now.models.length) at("loaded").append(make("li", "nothing yet", "faint"));
  } catch (error) {
    at("dot").className = "dot off";
    at("summary").textContent = error instanceof TypeError ? "the server does not answer" : error.message;
  }
}

function loaded(model) {
  const leaves = model.leaves_in_seconds;
  const facts = [size(model.bytes), `${model.context_tokens} tokens`];
  if (model.gpu_bytes) facts.push(`${size(model.gpu_bytes)} on GPU`);
  facts.push(model.busy ? "busy" : leaves === null ? "stays" : `leaves in ${span(leaves)}`);
  const item = make("li");
  item.append(make("b", model.name), make("small", facts.join(" · ")));
  return item;
}

async function models() {
  let found;
  try {
    found = (await json("/api/tags")).models;
  } catch (error) {
    at("models").replaceChildren(make("li", error.message, "faint"));
    return;
  }
  const talks = found.filter(model => (model.capabilities ?? ["completion"]).includes("completion"));
  const chosen = localStorage.getItem("model");
  at("model").replaceChildren(...talks.map(model => new Option(model.name, model.name, false, model.name === chosen)));
  at("models").replaceChildren(...found.map(model => {
    const button = make("button");
    const details = model.details ?? {};
    const facts = [size(model.size), details.parameter_size, details.quantization_level].filter(Boolean);
    button.append(make("b", model.name), make("small", facts.join(" · ")));
    button.disabled = !talks.includes(model);
    button.addEventListener("click", () => { choose(model.name); unfold(false); });
    const item = make("li");
    item.append(button);
    return item;
  }));
  if (!found.length) at("models").append(make("li", "none: nfl pull NAME gets one", "faint"));
  choose(at("model").value);
}

function choose(name) {
  at("model").value = name;
  if (name) localStorage.setItem("model", name);
  for (const button of at("models").querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(button.firstChild.textContent === name));
  ready();
}

// ---- the conversation

let messages = [];
let running = null; // ends the reply that is being made

function ready() {
  at("send").disabled = Boolean(running) || !at("model").value || !at("text").value.trim();
  at("send").hidden = Boolean(running);
  at("stop").hidden = !running;
}

function say(role, text) {
  at("welcome")?.remove();
  const node = make("article", text, role);
  at("talk").append(node);
  node.scrollIntoView({ block: "end" });
  return node;
}

// Code in fences and between backticks is set as code; everything else stays as it is.
function show(node, text) {
  node.replaceChildren(...text.split(/^```/m).flatMap((part, index) => {
    if (index % 2) {
      const code = make("pre");
      code.append(make("code", part.replace(/^[^\n]*\n?/, "").replace(/\n$/, "")));
      return [code];
    }
    return part.split(/\n{2,}/).map(text => text.replace(/^\n+|\n+$/g, "")).filter(Boolean).map(text => {
      const paragraph = make("p");
      paragraph.append(...text.split(/`([^`\n]+)`/).map((part, index) => index % 2 ? make("code", part) : part));
      return paragraph;
    });
  }));
}

async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts;
  }
  if (rest) yield rest;
}

async function reply() {
  const conversation = messages;
  const node = say("assistant busy", "");
  const text = make("div");
  const thoughts = make("details");
  const thought = make("div");
  thoughts.append(make("summary", "Thoughts"), thought);
  node.append(text);
  let content = "", drawn = false;
  const draw = () => {
    if (drawn) return;
    drawn = true;
    requestAnimationFrame(() => {
      drawn = false;
      const talk = at("talk");
      const follows = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
      show(text, content);
      if (follows) talk.scrollTop = talk.scrollHeight;
    });
  };
  running = new AbortController();
  ready();
  try {
    const body = JSON.stringify({ model: at("model").value, messages });
    const answer = await ask("/api/chat", { method: "POST", body, signal: running.signal });
    if (!answer.ok) throw new Error(problem(await answer.json().catch(() => ({})), answer.status));
    for await (const line of lines(answer)) {
      const part = JSON.parse(line);
      if (part.error) throw new Error(problem(part));
      if (part.message?.thinking) {
        if (!thoughts.parentNode) node.prepend(thoughts);
        thought.append(part.message.thinking);
      }
      content += part.message?.content ?? "";
      draw();
      if (part.eval_duration)
        at("speed").textContent = `${(part.eval_count / part.eval_duration * 1e9).toFixed(1)} tokens/s`;
    }
  } catch (error) {
    if (error.name !== "AbortError") say("error", error.message);
    // What was not answered is to be sent again, perhaps in other words.
    if (!content) {
      const last = conversation.pop();
      at("text").value ||= last.content;
      grow();
    }
  } finally {
    running = null;
    node.classList.remove("busy");
    show(text, content);
    if (content) conversation.push({ role: "assistant", content });
    else if (!thoughts.parentNode) node.remove();
    ready();
    status();
  }
}

function send() {
  const content = at("text").value.trim();
  if (!content || running || !at("model").value) return;
  at("text").value = "";
  grow();
  messages.push({ role: "user", content });
  say("user", content);
  reply();
}

function grow() {
  at("text").style.height = "auto";
  at("text").style.height = `${at("text").scrollHeight}px`;
  ready();
}

at("form").addEventListener("submit", event => { event.preventDefault(); send(); });
at("text").addEventListener("input", grow);
at("text").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
at("stop").addEventListener("click", () => running?.abort());
at("model").addEventListener("change", () => choose(at("model").value));
at("new").addEventListener("click", () => {
  running?.abort();
  messages = [];
  at("talk").replaceChildren();
  at("speed").textContent = "";
  at("text").focus();
});
const unfold = open => at("more").setAttribute("aria-expanded", String(open));
at("more").addEventListener("click", () => unfold(at("more").getAttribute("aria-expanded") !== "true"));
document.addEventListener("visibilitychange", status);
setInterval(status, 4000);
ready();
status().then(models);
