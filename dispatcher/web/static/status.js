// The status page: fetches a page of /api/status every few seconds and shows it; the server pages and filters. All text from there is set as textContent;
// nothing is ever parsed as HTML.
"use strict";

const EVERY = 3000; // milliseconds between two requests
const PATIENCE = 8000; // milliseconds for one answer
const STALE = 12000; // milliseconds without an answer after which the page shows that it is stale
const SOON = 700; // milliseconds until the next request while the dispatcher reads the queues after a rest
const ROWS = 50; // of each section
const LONG = 180; // characters from which on a sentence may be folded
const PEEKED = 32; // the largest number of messages that Azure lets anybody peek at

const SECTIONS = {
  running: {
    title: "Running",
    columns: [["Model", "c-model"], ["Progress", ""], ["Loss", "c-loss"], ["For", "c-age"],
      ["GPUs", "c-number number"], ["Try", "c-tries number"], ["Node", "c-node"]],
    cells: (row) => [model(row), progress(row), loss(row), age(row.since, "For"), gpus(row), tries(row), node(row)],
    empty: ["Nothing is training. To send a request: ", "dispatcher submit model-123 --dataset dataset-xyz"],
  },
  waiting: {
    title: "Waiting",
    columns: [["Model", "c-model"], ["Waits for", ""], ["For", "c-age"], ["GPUs", "c-number number"]],
    cells: (row) => [model(row), reason(row), age(row.since, "For"), gpus(row)],
    empty: ["Nothing waits: the queue has no visible message, and no Job is without its trainer."],
  },
  ended: {
    title: "Ended",
    columns: [["Model", "c-model"], ["Outcome", ""], ["Ended", "c-age"], ["Try", "c-tries number"],
      ["Node", "c-node"]],
    cells: (row) => [model(row), reason(row), age(row.since, "Ended", " ago"), tries(row), node(row)],
    empty: ["No ended Job is kept. Each stays for ", "TTL_AFTER_REPORT_SECONDS", " after its report."],
  },
  refused: {
    title: "Refused",
    columns: [["Model", "c-model"], ["Reason", ""], ["Refused", "c-age"]],
    cells: (row) => [model(row), reason(row), age(row.since, "Refused", " ago")],
    empty: ["Nothing was refused, and the poison queue is empty."],
  },
};
const TONES = { completed: "good", failed: "bad", reporting: "warn", stopping: "warn", refused: "bad" };

const $ = (id) => document.getElementById(id);
const state = { data: null, etag: "", offsets: {}, heard: 0, ahead: 0, asked: 0, abort: null, timer: 0, stale: false, problem: "" };
const shown = {}; // section → {parts, turned: somebody waits for another page, rows: key → {element, text}}

// Elements

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "polyline", "circle"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const count = (number) => number.toLocaleString("en");
const many = (number, one, more) => `${count(number)} ${number === 1 ? one : more}`;

// Times: by the server's clock, which may differ from this machine's

const now = () => Date.now() + state.ahead;

function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (days) return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
  if (hours) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return minutes ? `${minutes} min` : `${seconds} s`;
}

function age(text, label, after = "") {
  const at = Date.parse(text ?? "");
  if (Number.isNaN(at)) return { content: ["–"], blank: true };
  const time = make("time", { datetime: text, title: new Date(at).toLocaleString(), "data-at": at, "data-after": after });
  time.textContent = span(now() - at) + after;
  return { content: [time], label };
}

function tick() {
  for (const time of document.querySelectorAll("time[data-at]")) {
    write(time, span(now() - Number(time.dataset.at)) + time.dataset.after);
  }
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

// Cells: {content, class, label (shown on a phone), blank}

function model(row) {
  const under = [row.dataset, row.run_id && `run ${row.run_id}`].filter(Boolean);
  const name = make("span", { class: "model" }, row.model || "no model named");
  return {
    content: [name, ...under.map((text) => make("div", { class: "under" }, text))],
    class: "whole",
    head: true,
  };
}

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

function reason(row) {
  const kept = row.poison ? make("div", { class: "under" }, "in the poison queue") : null;
  const words = make("div", { class: "words" }, ...sentence(row), kept);
  return { content: [make("div", { class: "stated" }, make("div", { class: "state" }, chip(row)), words)],
    class: "whole" };
}

function progress(row) {
  const told = row.progress;
  const content = [chip(row), ...sentence(row)];
  if (told && told.done !== null) {
    const percent = `${Math.floor(told.done * 100)} %`;
    const bar = make("progress", { max: 1, value: told.done, "aria-label": `Progress of ${row.model}` });
    content.push(make("div", { class: "progress" }, bar, make("span", { class: "percent" }, percent)));
  }
  return { content, class: "whole" };
}

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
  const line = points.map(([epoch, value]) => `${x(epoch).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const curve = make("svg", { class: "spark", viewBox: "0 0 90 26", role: "img", "aria-label": words },
    make("polyline", { points: line }),
    make("circle", { cx: x(last[0]).toFixed(1), cy: y(last[1]).toFixed(1), r: 2.4 }));
  return { content: [make("div", { class: "loss" }, curve, make("span", {}, short(last[1])))] };
}

const short = (value) => String(Number(value.toPrecision(3)));

function gpus(row) {
  const some = row.nodes_running && row.nodes_running < row.nodes ? `${row.nodes_running} of ` : "";
  const under = row.nodes > 1 ? make("div", { class: "under" }, `${some}${row.nodes} nodes`) : null;
  return { content: [row.gpus ? String(row.gpus) : "–", under], class: "number", label: "GPUs",
    blank: !row.gpus && !under };
}

function tries(row) {
  const often = row.disruptions ? make("div", { class: "under" }, `${row.disruptions} disrupted`) : null;
  return { content: [row.attempts ? String(row.attempts) : "–", often], class: "number", label: "Try",
    blank: row.attempts <= 1 && !row.disruptions };
}

function node(row) {
  return { content: [row.node || "–"], class: "cell-node", label: "Node", blank: !row.node };
}

// Pages

const TURNS = {
  First: () => 0,
  Previous: (offset) => Math.max(0, offset - ROWS),
  Next: (offset) => offset + ROWS,
  Last: (offset, matching) => Math.floor((matching - 1) / ROWS) * ROWS,
};

function pager(name, title) {
  const range = make("span", { class: "range" });
  const buttons = Object.entries(TURNS).map(([word, turn]) => {
    // Not `disabled`, which would take the focus from whoever reaches the last page by keyboard.
    const button = make("button", { class: "turn", type: "button", "aria-label": `${word} page of ${title}` }, word);
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-disabled") === "true") return;
      const { offset, matching } = state.data[name];
      state.offsets[name] = turn(state.offsets[name] ?? offset, matching);
      shown[name].turned = true;
      ask();
    });
    return button;
  });
  const [first, previous, next, last] = buttons;
  return { range, buttons, element: make("nav", { class: "pager", "aria-label": `Pages of ${title}` },
    first, previous, range, next, last) };
}

function turn(name, { matching, offset, rows }) {
  const { parts, turned } = shown[name];
  const end = offset + rows.length;
  const several = matching > rows.length;
  parts.pager.element.hidden = !several;
  if (several) {
    write(parts.pager.range, `${count(offset + 1)} to ${count(end)} of ${count(matching)}`);
    const [first, previous, next, last] = parts.pager.buttons;
    for (const button of [first, previous]) button.setAttribute("aria-disabled", String(offset === 0));
    for (const button of [next, last]) button.setAttribute("aria-disabled", String(end >= matching));
  }
  state.offsets[name] = offset; // the server's: there may be fewer rows by now
  if (!turned) return;
  shown[name].turned = false;
  write($("spoken"), `${SECTIONS[name].title}: ${parts.pager.range.textContent}`);
  if (parts.section.getBoundingClientRect().top < 0) parts.section.scrollIntoView();
}

// Sections

function build() {
  for (const [name, kind] of Object.entries(SECTIONS)) {
    const tile = { count: make("span", { class: "count" }, "–"), more: make("span", { class: "more" }) };
    const label = make("span", { class: "label" }, kind.title);
    $("tiles").append(make("a", { class: "tile", href: `#${name}` }, label, tile.count, tile.more));
    const columns = kind.columns.map(([text, look]) => make("th", { role: "columnheader", scope: "col", class: look }, text));
    const parts = {
      tile,
      total: make("span", { class: "total" }),
      note: make("p", { class: "note" }),
      empty: make("p", { class: "empty" }),
      body: make("tbody", { role: "rowgroup" }),
      pager: pager(name, kind.title),
    };
    parts.table = make("table", { role: "table", "aria-labelledby": `${name}-title` },
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...columns)), parts.body);
    const title = make("h2", { id: `${name}-title` }, kind.title);
    parts.section = make("section", { id: name, "aria-labelledby": `${name}-title` },
      make("div", { class: "head" }, title, parts.total, parts.note),
      make("div", { class: "card" }, parts.table, parts.pager.element, parts.empty));
    $("sections").append(parts.section);
    shown[name] = { parts, turned: false, rows: new Map() };
  }
}

function fill(name, section, query) {
  const { parts, rows } = shown[name];
  const keys = new Set();
  let before = null;
  for (const row of section.rows) {
    let key = `${row.message_id ?? ""} ${row.phase === "refused" ? row.code : row.model}`;
    while (keys.has(key)) key += "+";
    keys.add(key);
    // tick() updates ages: a row is drawn anew only when its data has changed, so that a selected text and an unfolded
    // sentence stay.
    const text = JSON.stringify(row);
    let known = rows.get(key);
    if (!known || known.text !== text) {
      const element = draw(SECTIONS[name], row);
      if (known) known.element.replaceWith(element);
      rows.set(key, known = { element, text });
    }
    const place = before ? before.nextSibling : parts.body.firstChild;
    if (place !== known.element) parts.body.insertBefore(known.element, place);
    before = known.element;
  }
  for (const [key, known] of rows) {
    if (!keys.has(key)) { known.element.remove(); rows.delete(key); }
  }
  const { total, matching } = section;
  write(parts.tile.count, count(total));
  write(parts.total, query ? `${count(matching)} of ${count(total)}` : count(total));
  turn(name, section);
  parts.table.hidden = !section.rows.length;
  parts.empty.hidden = Boolean(section.rows.length);
  if (parts.empty.hidden) return;
  const words = query && total ? [`Nothing here matches “${query}”.`] : SECTIONS[name].empty;
  if (parts.empty.textContent !== words.join("")) {
    parts.empty.replaceChildren(...words.map((word, n) => (n % 2 ? make("code", {}, word) : word)));
  }
}

function draw(kind, row) {
  const cells = kind.cells(row).map((cell) => {
    const look = [cell.class, cell.blank && "blank"].filter(Boolean).join(" ");
    const label = cell.label ? make("span", { class: "label-of", "aria-hidden": "true" }, `${cell.label} `) : null;
    return make("td", { role: cell.head ? "rowheader" : "cell", class: look || null }, label, ...cell.content);
  });
  return make("tr", { role: "row" }, ...cells);
}

// A sentence that fits needs no button.
function fold() {
  for (const toggle of document.querySelectorAll(".toggle[aria-expanded=false]")) {
    const text = toggle.previousElementSibling;
    toggle.hidden = text.scrollHeight <= text.clientHeight + 1;
  }
}

function show() {
  const data = state.data, query = $("query").value.trim();
  const { dispatcher, queue, phases } = data;
  for (const name of Object.keys(SECTIONS)) fill(name, data[name], query);
  const on = queue.depth ? `about ${many(queue.depth, "message", "messages")} on the queue` : "queue empty";
  const poison = queue.poison_depth === null ? "poison queue not known"
    : queue.poison_depth ? `about ${count(queue.poison_depth)} in the poison queue` : "poison queue empty";
  write(shown.running.parts.tile.more, many(data.gpus_in_use, "GPU in use", "GPUs in use"));
  write(shown.waiting.parts.tile.more, queue.depth === null ? "queue not known" : on);
  write(shown.ended.parts.tile.more, phases.failed ? `${count(phases.failed)} failed` : "none failed");
  write(shown.refused.parts.tile.more, poison);
  write(shown.waiting.parts.note, queue.depth > PEEKED
    ? `Of about ${count(queue.depth)} messages on the queue, the first ${PEEKED} that nobody holds are shown.` : "");
  write(shown.ended.parts.note, data.ended_is_cut
    ? `The latest ${count(data.ended.total)}. The cluster keeps older ones, which are not listed here.` : "");
  const started = new Date(dispatcher.started_at).toLocaleString();
  write(shown.refused.parts.note,
    `What this process has refused since ${started}, and the first ${PEEKED} entries of the poison queue.`);
  write($("where"), `Namespace ${dispatcher.namespace || "–"} · queue ${queue.name}`);
  $("about").replaceChildren(
    make("p", {}, `Served by ${dispatcher.name} (${dispatcher.identity}), version ${dispatcher.version}, ` +
      `since ${started}. Other replicas show the same Jobs and queue, and their own refusals.`),
    make("p", {}, "Programs read the same at ", make("a", { href: "api/status" }, "api/status"), "."));
  document.title = `${count(data.running.total)} running, ${count(data.waiting.total)} waiting – Training dispatcher`;
}

function silenceText() {
  const at = new Date(state.heard).toLocaleTimeString();
  const last = state.heard ? `Last answer ${span(Date.now() - state.heard)} ago (${at}). ` : "";
  return `${last}${state.problem} Trying again every ${EVERY / 1000} s.`;
}

function notices() {
  const found = [];
  const add = (look, title, more) => found.push(make("div", { class: look }, make("strong", {}, title), more));
  const reasons = state.data?.dispatcher.not_ready ?? [];
  const problem = state.data?.queue.problem;
  if (state.stale) {
    const silence = make("span", { id: "silence", "aria-live": "off" }, silenceText());
    add("notice bad", "The dispatcher does not answer", silence);
  } else {
    const list = make("ul", {}, ...reasons.map((text) => make("li", {}, text)));
    if (reasons.length) add("notice", "No new request is taken now", list);
    if (problem) add("notice", "The queues cannot be read", problem);
  }
  const text = found.map((notice) => notice.textContent).join("\n");
  if ($("notices").textContent !== text.replaceAll("\n", "")) $("notices").replaceChildren(...found);
}

// Fetching

async function ask() {
  clearTimeout(state.timer);
  state.abort?.abort();
  const abort = (state.abort = new AbortController());
  const patience = setTimeout(() => abort.abort(), PATIENCE);
  const query = $("query").value.trim();
  const turned = Object.entries(state.offsets).filter(([, offset]) => offset);
  const address = `api/status?${new URLSearchParams([["limit", ROWS], ["q", query], ...turned])}`;
  try {
    const headers = state.etag && state.asked === address ? { "If-None-Match": state.etag } : {};
    const answer = await fetch(address, { headers, cache: "no-store", signal: abort.signal });
    if (answer.status !== 304) {
      if (!answer.ok) throw new Error(`It answered with ${answer.status}.`);
      const data = await answer.json();
      if (abort !== state.abort) return; // a newer request has replaced this one
      state.data = data;
      state.etag = answer.headers.get("ETag") ?? "";
      state.asked = address;
    }
    state.ahead = Date.parse(answer.headers.get("Date") ?? "") - Date.now() || 0;
    state.heard = Date.now();
    state.problem = "";
    show();
    fold();
    notices();
  } catch (error) {
    if (abort !== state.abort) return;
    state.problem = error.message.startsWith("It answered") ? error.message : "It cannot be reached.";
  } finally {
    clearTimeout(patience);
    if (abort === state.abort) {
      tick();
      const reading = state.data?.queue.depth === null && !state.data.queue.problem && !state.problem;
      state.timer = setTimeout(ask, reading ? SOON : EVERY);
    }
  }
}

let typing = 0;
function filter() {
  clearTimeout(typing);
  typing = setTimeout(() => {
    state.offsets = {};
    const query = $("query").value.trim();
    history.replaceState(null, "", query ? `?q=${encodeURIComponent(query)}` : location.pathname);
    ask();
  }, 150);
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, textarea, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    $("query").focus();
  }
});
document.addEventListener("visibilitychange", () => {
  // A hidden page fetches nothing.
  if (!document.hidden) return ask();
  clearTimeout(state.timer);
  state.abort?.abort();
  state.abort = null;
});
$("query").value = (new URLSearchParams(location.search).get("q") ?? "").slice(0, $("query").maxLength);
$("query").addEventListener("input", filter);
window.addEventListener("resize", fold);
build();
setInterval(tick, 1000);
ask();
