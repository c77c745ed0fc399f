// The list of trainings: shows a page of /api/status; the server pages and filters.
"use strict";

const ROWS = 50; // of each section
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

// offsets: of each section's page; told: the filter that was read out
const view = { offsets: {}, told: "" };
const shown = {}; // section → {parts, turned: somebody waits for another page, rows: key → {element, text}}

// Cells

function model(row) {
  const several = state.data.queue.each.length > 1;
  const under = [row.dataset, row.run_id && `run ${row.run_id}`, several && row.queue && `queue ${row.queue}`].filter(Boolean);
  // A browser takes dots alone for a way up, whatever they are written as.
  const linked = row.model && !/^\.+$/.test(row.model);
  const name = linked ? make("a", { class: "model", href: `models/${encodeURIComponent(row.model)}` }, row.model)
    : make("span", { class: "model" }, row.model || "no model named");
  return {
    content: [name, ...under.map((text) => make("div", { class: "under" }, text))],
    class: "whole",
    head: true,
  };
}

function progress(row) {
  return { content: [chip(row), ...sentence(row), bar(row)], class: "whole" };
}

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
      view.offsets[name] = turn(view.offsets[name] ?? offset, matching);
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
  view.offsets[name] = offset; // the server's: there may be fewer rows by now
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
    const parts = {
      tile,
      total: make("span", { class: "total" }),
      note: make("p", { class: "note" }),
      empty: make("p", { class: "empty" }),
      body: make("tbody", { role: "rowgroup" }),
      pager: pager(name, kind.title),
    };
    parts.table = table({ "aria-labelledby": `${name}-title` }, kind.columns, parts.body);
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
      const element = line(SECTIONS[name].cells(row));
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

// All of it

function show(data) {
  const query = $("query").value.trim();
  const { dispatcher, queue, phases } = data;
  for (const name of Object.keys(SECTIONS)) fill(name, data[name], query);
  const on = queue.depth ? `about ${many(queue.depth, "message", "messages")} on the queue` : "queue empty";
  const poison = queue.poison_depth === null ? "poison queue not known"
    : queue.poison_depth ? `about ${count(queue.poison_depth)} in the poison queue` : "poison queue empty";
  write(shown.running.parts.tile.more, many(data.gpus_in_use, "GPU in use", "GPUs in use"));
  write(shown.waiting.parts.tile.more, queue.depth === null ? "queue not known" : on);
  write(shown.ended.parts.tile.more, phases.failed ? `${count(phases.failed)} failed` : "none failed");
  write(shown.refused.parts.tile.more, poison);
  const long = queue.each.filter((each) => each.depth > PEEKED).map((each) => `about ${count(each.depth)} on ${each.name}`);
  write(shown.waiting.parts.note, long.length
    ? `Of the messages, ${long.join(", ")}, the first ${PEEKED} on each queue that nobody holds are shown.` : "");
  write(shown.ended.parts.note, data.ended_is_cut
    ? `The latest ${count(data.ended.total)}. The cluster keeps older ones, which are not listed here.` : "");
  const started = new Date(dispatcher.started_at).toLocaleString();
  write(shown.refused.parts.note,
    `What this process has refused since ${started}, and the first ${PEEKED} entries of each poison queue.`);
  const several = queue.each.length > 1;
  write($("where"), `Namespace ${dispatcher.namespace || "–"} · ${several ? "queues" : "queue"} ${queue.name}`);
  about(dispatcher, "Other replicas show the same Jobs and queue, and their own refusals.", "api/status");
  showTrends(data.trends);
  showQueues(queue.each);
  document.title = `${count(data.running.total)} running, ${count(data.waiting.total)} waiting – Training dispatcher`;
  if (query !== view.told) {
    view.told = query;
    const found = Object.keys(SECTIONS).map((name) => `${SECTIONS[name].title}: ${count(data[name].matching)}`);
    write($("spoken"), query ? `${found.join(", ")} match ${query}` : "All are shown");
  }
  return queue.depth === null && !queue.problem; // the dispatcher is reading the queues after a rest
}

const PAGE = {
  address() {
    const turned = Object.entries(view.offsets).filter(([, offset]) => offset);
    return `api/status?${new URLSearchParams([["limit", ROWS], ["q", $("query").value.trim()], ...turned])}`;
  },
  show,
};

let typing = 0;
function filter() {
  clearTimeout(typing);
  typing = setTimeout(() => {
    view.offsets = {};
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
$("query").value = (new URLSearchParams(location.search).get("q") ?? "").slice(0, $("query").maxLength);
$("query").addEventListener("input", filter);
view.told = $("query").value.trim();
build();
begin();
