// What both pages share: elements, times, the cells of a training, and asking the dispatcher every few seconds. All
// text from there is set as textContent; nothing is ever parsed as HTML. Each page's own script has a PAGE:
// address(): what is asked for; show(data): what becomes of the answer.
"use strict";

const EVERY = 3000; // milliseconds between two requests
const PATIENCE = 8000; // milliseconds for one answer
const STALE = 12000; // milliseconds without an answer after which the page shows that it is stale
const SOON = 700; // milliseconds until the next request while the dispatcher reads queues or portal after a rest
const LONG = 180; // characters from which on a sentence may be folded
const TONES = { completed: "good", failed: "bad", reporting: "warn", stopping: "warn", refused: "bad", foreign: "warn",
  elsewhere: "warn", unknown: "warn", "not known": "warn", "not requested": "warn" };
const DRAWN = ["svg", "polyline", "circle", "rect", "line"];

const $ = (id) => document.getElementById(id);
const state = { data: null, etag: "", heard: 0, ahead: 0, asked: 0, abort: null, timer: 0, stale: false, problem: "" };

// Elements

function make(tag, attributes = {}, ...children) {
  const element = DRAWN.includes(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => ![null, undefined, false, ""].includes(child)));
  return element;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const count = (number) => number.toLocaleString("en");
const many = (number, one, more) => `${count(number)} ${number === 1 ? one : more}`;

// A table whose roles stay where a phone's layout makes blocks of its rows. columns: [title, class].
function table(attributes, columns, ...bodies) {
  const heads = columns.map(([text, look]) => make("th", { role: "columnheader", scope: "col", class: look || null }, text));
  return make("table", { role: "table", class: "rows", ...attributes },
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)), ...bodies);
}

// cells: {content, class, label (shown on a phone), blank, head}
function line(cells) {
  return make("tr", { role: "row" }, ...cells.map((cell) => {
    const look = [cell.class, cell.blank && "blank"].filter(Boolean).join(" ");
    const label = cell.label ? make("span", { class: "label-of", "aria-hidden": "true" }, `${cell.label} `) : null;
    return make(cell.head ? "th" : "td", { role: cell.head ? "rowheader" : "cell", scope: cell.head ? "row" : null,
      class: look || null }, label, ...cell.content);
  }));
}

// Times: by the server's clock, which may differ from this machine's

const now = () => Date.now() + state.ahead;

function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (days) return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
  if (hours) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return minutes ? `${minutes} min` : `${seconds} s`;
}

// A time as how long ago it is, or how long it is until then; tick() keeps it true.
function since(text, { before = "", after = "", until = false } = {}) {
  const at = Date.parse(text);
  const time = make("time", { datetime: text, title: new Date(at).toLocaleString(), "data-at": at, "data-before": before,
    "data-after": after, "data-until": until });
  time.textContent = ago(time);
  return time;
}

function ago(time) {
  const { at, before, after, until } = time.dataset;
  return before + span(until ? Number(at) - now() : now() - Number(at)) + after;
}

function age(text, label, after = "") {
  if (Number.isNaN(Date.parse(text ?? ""))) return { content: ["–"], blank: true };
  return { content: [since(text, { after })], label };
}

function tick() {
  for (const time of document.querySelectorAll("time[data-at]")) write(time, ago(time));
  const silence = state.heard ? Date.now() - state.heard : 0;
  const stale = Boolean(state.problem) && (!state.heard || silence > STALE);
  write($("fresh-text"), state.heard ? `${span(silence)} ago` : stale ? "never" : "…");
  if (stale !== state.stale) {
    state.stale = stale;
    document.body.classList.toggle("stale", stale);
    notices();
    write($("spoken"), stale ? "" : "The dispatcher answers again."); // while stale, the notice is read out
  } else if (stale && $("silence")) {
    write($("silence"), silenceText());
  }
}

// What a row of a training says

function chip(row) {
  if (row.phase === "running") return null;
  const text = { refused: row.code, completed: "completed", failed: row.code || "failed" }[row.phase] ?? row.phase;
  const tone = row.phase === "refused" && !row.poison ? "warn" : TONES[row.phase] ?? "";
  return make("span", { class: `chip ${tone}` }, text);
}

function sentence(row) {
  const long = (row.sentence || "").length > LONG;
  const text = make("div", { class: long ? "sentence long" : "sentence" }, row.sentence || "");
  if (!long) return [text];
  const toggle = make("button", { class: "toggle", type: "button", "aria-expanded": "false" }, "Show all");
  toggle.addEventListener("click", () => {
    const open = text.classList.toggle("open");
    toggle.setAttribute("aria-expanded", String(open));
    toggle.textContent = open ? "Show less" : "Show all";
  });
  return [text, toggle];
}

// A sentence that fits needs no button.
function fold() {
  for (const toggle of document.querySelectorAll(".toggle[aria-expanded=false]")) {
    const text = toggle.previousElementSibling;
    toggle.hidden = text.scrollHeight <= text.clientHeight + 1;
  }
}

function reason(row) {
  const kept = row.poison ? make("div", { class: "under" }, "in the poison queue") : null;
  const words = make("div", { class: "words" }, ...sentence(row), kept);
  return { content: [make("div", { class: "stated" }, make("div", { class: "state" }, chip(row)), words)],
    class: "whole" };
}

function bar(row) {
  const told = row.progress;
  if (!told || told.done === null) return null;
  return make("div", { class: "progress" },
    make("progress", { max: 1, value: told.done, "aria-label": `Progress of ${row.model}` }),
    make("span", { class: "percent" }, `${Math.floor(told.done * 100)} %`));
}

const short = (value) => String(Number(value.toPrecision(3)));

function loss(row) {
  const points = row.progress?.losses ?? [];
  if (!points.length) return { content: [make("span", { class: "under" }, "–")], blank: true };
  const values = points.map((point) => point[1]);
  const [first, last] = [points[0], points[points.length - 1]];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (epoch) => 3 + (84 * (epoch - first[0])) / Math.max(1, last[0] - first[0]);
  const y = (value) => 3 + (20 * (high - value)) / (high - low || 1);
  if (points.length === 1) return { content: [short(last[1])], label: "Loss" };
  const words = `Training loss from ${short(first[1])} in epoch ${first[0]} to ${short(last[1])} in epoch ` +
    `${last[0]}, lowest ${short(low)}`;
  const path = points.map(([epoch, value]) => `${x(epoch).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const curve = make("svg", { class: "spark", viewBox: "0 0 90 26", role: "img", "aria-label": words },
    make("polyline", { points: path }),
    make("circle", { cx: x(last[0]).toFixed(1), cy: y(last[1]).toFixed(1), r: 2.4 }));
  return { content: [make("div", { class: "loss" }, curve, make("span", {}, short(last[1])))] };
}

function node(row) {
  return { content: [row.node || "–"], class: "cell-node", label: "Node", blank: !row.node };
}

// What stands above and below all

function silenceText() {
  const at = new Date(state.heard).toLocaleTimeString();
  const last = state.heard ? `Last answer ${span(Date.now() - state.heard)} ago (${at}). ` : "";
  return `${last}${state.problem} Trying again every ${EVERY / 1000} s.`;
}

function notices() {
  const found = [];
  const add = (look, title, more) => found.push(make("div", { class: look }, make("strong", {}, title), more));
  const reasons = state.data?.dispatcher.not_ready ?? [];
  const problem = state.data?.queue?.problem;
  if (state.stale) {
    const silence = make("span", { id: "silence", "aria-live": "off" }, silenceText());
    add("notice bad", "The dispatcher does not answer", silence);
  } else {
    const list = make("ul", {}, ...reasons.map((text) => make("li", {}, text)));
    if (reasons.length) add("notice", "No new request is taken now", list);
    const title = state.data?.queue?.each.length > 1 ? "Not every queue can be read" : "The queues cannot be read";
    if (problem) add("notice", title, problem);
  }
  const text = found.map((notice) => notice.textContent).join("\n");
  if ($("notices").textContent !== text.replaceAll("\n", "")) $("notices").replaceChildren(...found);
}

function about({ name, identity, version, started_at: started }, also, api) {
  const text = `Served by ${name} (${identity}), version ${version}, since ${new Date(started).toLocaleString()}. ${also}`;
  if ($("about").firstChild?.textContent === text) return; // whoever stands on its link stays there
  $("about").replaceChildren(make("p", {}, text),
    make("p", {}, "Programs read the same at ", make("a", { href: api }, api.replace("../", "")), "."));
}

// Fetching

async function ask() {
  clearTimeout(state.timer);
  state.abort?.abort();
  const abort = (state.abort = new AbortController());
  const patience = setTimeout(() => abort.abort(), PATIENCE);
  const address = PAGE.address();
  let heard = false;
  try {
    const headers = state.etag && state.asked === address ? { "If-None-Match": state.etag } : {};
    const answer = await fetch(address, { headers, cache: "no-store", signal: abort.signal });
    if (answer.status !== 304) {
      if (!answer.ok && !(answer.status === 404 && PAGE.mayBeUnknown)) {
        throw new Error(`It answered with ${answer.status}.`);
      }
      const data = await answer.json();
      if (abort !== state.abort) return; // a newer request has replaced this one
      state.data = data;
      state.etag = answer.headers.get("ETag") ?? "";
      state.asked = address;
    }
    state.ahead = Date.parse(answer.headers.get("Date") ?? "") - Date.now() || 0;
    state.heard = Date.now();
    state.problem = "";
    heard = true;
  } catch (error) {
    if (abort !== state.abort) return;
    state.problem = error.message.startsWith("It answered") ? error.message : "It cannot be reached.";
  } finally {
    clearTimeout(patience);
  }
  if (abort !== state.abort) return;
  let soon = false;
  try {
    // What fails here is a defect of this page, for its console, and no silence of the dispatcher.
    if (heard) soon = PAGE.show(state.data);
    fold();
    notices();
  } finally {
    tick();
    state.timer = setTimeout(ask, soon ? SOON : EVERY);
  }
}

function begin() {
  document.addEventListener("visibilitychange", () => {
    // A hidden page fetches nothing.
    if (!document.hidden) return ask();
    clearTimeout(state.timer);
    state.abort?.abort();
    state.abort = null;
  });
  window.addEventListener("resize", fold);
  setInterval(tick, 1000);
  ask();
}
