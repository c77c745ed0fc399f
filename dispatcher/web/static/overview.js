// What stands above the rows of the list: the last 24 hours, and the queues where there are several.
"use strict";

const overview = { trends: "", queues: "" }; // as drawn

// The last 24 hours

const HOUR = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const clockTime = (text) => new Date(text).toLocaleTimeString([], HOUR);

function showTrends(trends) {
  const text = JSON.stringify(trends);
  if (overview.trends === text) return;
  overview.trends = text;
  const codes = Object.entries(trends.codes).map(([code, number]) => `${code} ${count(number)}`).join(", ");
  const since = new Date(trends.since).toLocaleString([], { month: "short", day: "numeric", ...HOUR });
  write($("trends-since"), trends.since > trends.hours[0].began
    ? `In full since ${since}; of what ended before that, what Jobs still tell.` : `Since ${since}.`);
  write($("launched"), count(trends.launched));
  write($("completed"), count(trends.completed));
  write($("failed"), count(trends.failed));
  write($("codes"), codes);
  $("chart").replaceChildren(chart(trends));
  write($("first-hour"), clockTime(trends.hours[0].began));
  $("hours").replaceChildren(...[...trends.hours].reverse().map((hour) => line([
    { content: [make("time", { datetime: hour.began }, clockTime(hour.began))], head: true },
    ...["launched", "completed", "failed"].map((name) => ({ content: [count(hour[name])], class: "number" })),
  ])));
}

// What completed stands above the line, what failed hangs below it, and another line shows what was launched.
function chart({ hours, since }) {
  const up = Math.max(1, ...hours.map((hour) => Math.max(hour.launched, hour.completed)));
  const down = Math.max(1, ...hours.map((hour) => hour.failed));
  const unit = Math.min(46 / up, 20 / down);
  const box = (look, n, y, height) => make("rect", { class: look, x: n * 10 + 2, width: 6, y: y.toFixed(2),
    height: height.toFixed(2) });
  const drawn = [];
  hours.forEach((hour, n) => {
    if (hours[n + 1] && hours[n + 1].began <= since) {
      drawn.push(make("rect", { class: "untold", x: n * 10, width: 10, y: 0, height: 72 }));
    }
    if (hour.completed) drawn.push(box("done", n, 50 - hour.completed * unit, hour.completed * unit));
    if (hour.failed) drawn.push(box("fell", n, 50, hour.failed * unit));
  });
  const path = hours.map((hour, n) => `${n * 10 + 5},${(50 - hour.launched * unit).toFixed(2)}`).join(" ");
  return make("svg", { viewBox: "0 0 240 72", preserveAspectRatio: "none", role: "img",
    "aria-label": "Launched, completed and failed in each hour; the table By hour has the numbers" }, ...drawn,
  make("line", { x1: 0, x2: 240, y1: 50, y2: 50 }), make("polyline", { points: path }));
}

// Several queues

function showQueues(queues) {
  $("queues").hidden = queues.length < 2;
  const text = JSON.stringify(queues);
  if (queues.length < 2 || overview.queues === text) return;
  overview.queues = text;
  const about = (number) => (number === null ? "not known" : count(number));
  $("queues").querySelector(".card").replaceChildren(table({ "aria-labelledby": "queues-title" },
    [["Queue", "c-model"], ["Messages, about", "number"], ["In its poison queue, about", "number"], ["Unfinished Jobs", "number"],
      ["Room for", "number"], ["Weight", "number"]],
    make("tbody", { role: "rowgroup" }, ...queues.map((queue) => line([
      { content: [make("span", { class: "model" }, queue.name), queue.problem && make("div", { class: "under" }, queue.problem)],
        head: true, class: "whole" },
      { content: [about(queue.depth)], class: "number", label: "Messages" },
      { content: [about(queue.poison_depth)], class: "number", label: "Poison" },
      { content: [count(queue.active)], class: "number", label: "Unfinished" },
      { content: [count(queue.room)], class: "number", label: "Room for" },
      { content: [count(queue.weight)], class: "number", label: "Weight" },
    ])))));
}
