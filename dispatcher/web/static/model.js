// A model's own page: where it stands, who holds it, what to do next, and how it came there; see /api/models/MODEL.
"use strict";

// The address names it, however it is written there.
const NAME = (() => {
  const last = location.pathname.slice(location.pathname.lastIndexOf("/") + 1);
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
})();
const API = `../api/models/${encodeURIComponent(NAME)}`;
const drawn = {}; // part of the page → what it was drawn from
let told = ""; // what was read out last

// A part is drawn anew only when its data has changed, so that a selected text stays.
function draw(part, data, element, children) {
  const text = JSON.stringify(data);
  if (drawn[part] === text) return;
  drawn[part] = text;
  element.replaceChildren(...children().filter(Boolean));
}

// `commands` in a sentence
function marked(text) {
  return text.split("`").map((piece, n) => (n % 2 ? make("code", {}, piece) : piece));
}

function fact(name, ...value) {
  return value.some((each) => each) ? make("div", {}, make("dt", {}, name), make("dd", {}, ...value)) : null;
}

// Where it stands

function showStanding(data) {
  const { standing, portal, rows, gpu_seconds: spent, error } = data;
  const row = rows.find((each) => "run_id" in each);
  draw("standing", [standing, portal.status, portal.message, rows, spent], $("standing"), () => {
    const chips = [standing.phase, standing.code].filter(Boolean).map((text) =>
      make("span", { class: `chip ${TONES[standing.phase] ?? ""}` }, text));
    const curve = row ? loss(row) : { blank: true };
    return [
      make("p", { class: "verdict" }, ...chips.flatMap((each) => [each, " "]), make("span", {}, standing.sentence)),
      row && row.phase === "running" ? bar(row) : null,
      curve.blank ? null : make("p", { class: "curve" }, make("span", { class: "under" }, "Loss "), ...curve.content),
      make("p", { class: "next" }, make("strong", {}, "Next "), make("span", {}, ...marked(standing.advice))),
      make("dl", { class: "facts" },
        fact("Held by", standing.holder),
        standing.since && fact("Since", since(standing.since, { after: " ago" })),
        standing.until && fact("Tolerated", since(standing.until, { before: "for ", after: " more", until: true }),
          `; then Failed with ${standing.then}`),
        fact("At the portal", [portal.status, portal.message].filter(Boolean).join(": ")),
        row && fact("GPUs", row.gpus ? String(row.gpus) : "", row.nodes > 1 ? ` on ${row.nodes} nodes` : ""),
        row && fact("Tries", row.attempts ? String(row.attempts) : "",
          row.disruptions ? `, and ${many(row.disruptions, "pod", "pods")} that Kubernetes took away` : ""),
        fact("Queue", rows.find((each) => each.queue)?.queue),
        row && fact("Dataset", row.dataset),
        row && fact("Run", row.run_id),
        spent && spent.last + spent.retries > 0 && fact("GPU time", `${span(spent.last * 1000)} by the last attempt, ` +
          `${span(spent.retries * 1000)} by those before it`)),
      error ? help() : null,
    ];
  });
}

// For a name that nobody knows here
function help() {
  const whole = NAME.startsWith("model-") ? null : `model-${NAME}`;
  const list = make("a", { href: `../?q=${encodeURIComponent(NAME)}` }, "the list, filtered by this name");
  return make("div", { class: "help" },
    make("p", {}, "Known here are: Jobs that go on, or were reported and not removed yet; the first messages of each queue " +
      "and of its poison queue; what this process has refused."),
    make("ul", {},
      whole && make("li", {}, "Containers are called model-… : ",
        make("a", { href: encodeURIComponent(whole) }, `look at ${whole}`)),
      make("li", {}, "Look for a part of it: ", list),
      make("li", {}, "Ask queue, cluster and portal anew: ", make("code", {}, `dispatcher explain ${NAME}`))));
}

// The timeline

function took(step) {
  if (step.seconds !== null) return [span(step.seconds * 1000)];
  if (step.lasts && step.began) return [since(step.began, { after: " so far" })];
  return [make("span", { class: "under" }, "not known")];
}

const CLOCK = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const atTime = (text) => (text ? make("time", { datetime: text }, new Date(text).toLocaleString([], CLOCK)) : "–");

// How a step lies between the first and the last moment; for the eye alone, the numbers stand beside it.
function lane(step, from, to) {
  const began = Date.parse(step.began ?? ""), ended = step.lasts ? to : Date.parse(step.ended ?? "");
  if (Number.isNaN(began) || Number.isNaN(ended) || to <= from) return null;
  const x = (100 * (began - from)) / (to - from), width = Math.max(0.8, (100 * (ended - began)) / (to - from));
  return make("svg", { class: step.lasts ? "lane lasts" : "lane", viewBox: "0 0 100 8", preserveAspectRatio: "none",
    "aria-hidden": "true" }, make("rect", { x: Math.min(99.2, x).toFixed(2), width: width.toFixed(2), y: 1, height: 6 }));
}

function showTimeline(steps) {
  $("timeline").hidden = !steps.length;
  draw("timeline", steps, $("timeline").querySelector(".card"), () => {
    const times = steps.flatMap((step) => [step.began, step.ended]).map((text) => Date.parse(text ?? ""))
      .filter((time) => !Number.isNaN(time));
    const from = Math.min(...times), to = Math.max(...times, steps.some((step) => step.lasts) ? now() : 0);
    const bodies = [];
    let attempt;
    for (const step of steps) {
      if (step.attempt !== attempt || !bodies.length) {
        attempt = step.attempt;
        bodies.push(make("tbody", { role: "rowgroup" }));
        const nodes = [...new Set(steps.filter((each) => each.attempt === attempt).map((each) => each.node).filter(Boolean))];
        if (attempt !== null) bodies.at(-1).append(make("tr", { role: "row", class: "attempt" }, make("th",
          { role: "rowheader", scope: "rowgroup", colspan: 4 }, `Attempt ${attempt}`,
          nodes.length ? ` on ${nodes.join(", ")}` : "")));
      }
      const where = step.node_index === null ? "" : ` (node ${step.node_index + 1})`;
      bodies.at(-1).append(line([
        { content: [step.title + where], head: true, class: "whole" },
        { content: [atTime(step.began)], label: "Began", blank: !step.began },
        { content: [...took(step), lane(step, from, to)], class: "took", label: "Took" },
        { content: [step.note || ""], class: "whole", blank: !step.note },
      ]));
    }
    return [table({ "aria-labelledby": "timeline-title" },
      [["Step", "c-step"], ["Began", "c-time"], ["Took", "c-took"], ["How it ended", ""]], ...bodies)];
  });
}

// Its pods and requests

function showPods(pods) {
  $("pods").hidden = !pods.length;
  draw("pods", pods, $("pods").querySelector(".card"), () => [table({ "aria-labelledby": "pods-title" },
    [["Pod", "c-model"], ["Node", ""], ["State", "c-state"], ["Started", "c-when"], ["Ended", "c-when"], ["Exit", "c-exit number"]],
    make("tbody", { role: "rowgroup" }, ...pods.map((pod) => line([
      { content: [make("span", { class: "model" }, pod.name)], head: true, class: "whole" },
      { content: [pod.node || "–"], label: "Node", blank: !pod.node },
      { content: [pod.phase, pod.reason ? make("div", { class: "under" }, pod.reason) : null], label: "State" },
      { content: [atTime(pod.started_at)], label: "Started", blank: !pod.started_at },
      { content: [atTime(pod.finished_at)], label: "Ended", blank: !pod.finished_at },
      { content: [pod.exit_code === null ? "–" : String(pod.exit_code)], class: "number", label: "Exit code",
        blank: pod.exit_code === null },
    ]))))]);
}

function showRequests(rows) {
  const requests = rows.filter((row) => !("run_id" in row));
  $("requests").hidden = !requests.length;
  draw("requests", requests, $("requests").querySelector(".card"), () => [table({ "aria-labelledby": "requests-title" },
    [["Message", "c-model"], ["What becomes of it", ""], ["Since", "c-age"]],
    make("tbody", { role: "rowgroup" }, ...requests.map((row) => line([
      { content: [make("span", { class: "model" }, row.message_id || "–"),
        row.queue && make("div", { class: "under" }, `queue ${row.queue}`)], head: true, class: "whole" },
      reason(row),
      age(row.since, "Since", " ago"),
    ]))))]);
}

const PAGE = {
  mayBeUnknown: true,
  address: () => API,
  show(data) {
    const { standing, dispatcher, portal } = data;
    write($("model"), data.model);
    write($("where"), `Namespace ${dispatcher.namespace || "–"}`);
    showStanding(data);
    showTimeline(data.steps);
    showPods(data.pods);
    showRequests(data.rows);
    about(dispatcher, "It knows of this model what its cache and the queues show; the portal is asked every few seconds.", API);
    const state = [standing.phase, standing.code].filter(Boolean).join(", ");
    document.title = `${data.model}: ${state} – Training dispatcher`;
    if (state !== told) write($("spoken"), `${data.model}: ${state}: ${standing.sentence}`);
    told = state;
    return !portal.answered && portal.heard_at === null;
  },
};

write($("model"), NAME);
begin();
